from __future__ import annotations

import json
from typing import Any

import pytest

from pigeonholed_training.evaluation.doubts import doubts
from pigeonholed_training.evaluation.figures import share
from pigeonholed_training.evaluation.guessing import chance
from pigeonholed_training.evaluation.promises import refuted
from pigeonholed_training.evaluation.telling import names, percent
from pigeonholed_training.evaluation.verdict import verdict


def metrics(right: int = 980, n: int = 1000, **other: Any) -> dict[str, Any]:
    """Two classes of as many pictures each; nothing speaks against this model unless `other` does."""
    half = n // 2
    hits = right // 2, right - right // 2
    return {
        "labels": ["cat", "dog"],
        "counts": {"cat": {"train": 3 * n, "test": half}, "dog": {"train": 3 * n, "test": n - half}},
        "held_out": {
            "accuracy": share(right, n),
            "majority": 0.5,
            "confusion": [[hits[0], half - hits[0]], [n - half - hits[1], hits[1]]],
            "classes": [
                {"label": "cat", "n": half, "recall_interval": [0.9, 1.0]},
                {"label": "dog", "n": n - half, "recall_interval": [0.9, 1.0]},
            ],
            "sorted": share(round(0.9 * n) - 2, round(0.9 * n)),
            "unsure_share": 0.1,
        },
        "other_parts": {"train": share(990, 1000)},
        "precision_target": 0.98,
        "thresholds": [threshold("cat"), threshold("dog")],
        "agreement": {"largest_difference": 0.00001},
    } | other


def threshold(label: str, method: str = "certified", wrong: int = 1, n: int = 450) -> dict[str, Any]:
    return {"label": label, "method": method, "held": share(n - wrong, n)}


def held(**changed: Any) -> dict[str, Any]:
    return {"held_out": metrics()["held_out"] | changed}


def reasons(found: dict[str, Any]) -> str:
    return " ".join(verdict(found)["reasons"])


def test_a_good_model_is_good_and_says_what_speaks_for_it() -> None:
    found = verdict(metrics())
    assert found["level"] == "good"
    assert found["sentence"].startswith("98 % of 1000 pictures it had never seen are right. It sorts 90 %")
    assert any("promises" in reason for reason in found["reasons"])
    assert json.loads(json.dumps(found)) == found


def test_a_model_no_better_than_its_commonest_class_is_bad() -> None:
    found = verdict(metrics(right=505))
    assert (found["level"], found["sentence"]) == ("bad", "It is no better than guessing.")
    assert verdict(metrics(right=560))["sentence"] != found["sentence"]


def test_known_training_pictures_beside_guessing_point_to_shuffled_labels() -> None:
    assert "knows those by heart" in reasons(metrics(right=500))
    assert "Even what it learnt from is hardly known" in reasons(
        metrics(right=500, other_parts={"train": share(520, 1000)})
    )


def test_one_answer_to_all_points_to_pixels_scaled_twice_where_the_model_is_not_ours() -> None:
    blind = metrics(right=500) | held(accuracy=share(500, 1000), confusion=[[500, 0], [500, 0]])
    assert "says 'cat' to nearly every picture" in reasons(blind)
    assert "labels are shuffled" in reasons(blind)
    assert "scaled twice" not in reasons(blind)
    assert "scaled twice" in reasons(blind | {"imported": {"from": "mine.h5"}})


def test_a_good_model_that_sorts_what_it_does_not_know_says_so() -> None:
    strangers = [{"what": "noise", "sorted_share": 0.1}, {"what": "pages of text", "sorted_share": 0.9}]
    found = metrics() | {"behaviour": {"strangers": strangers}}
    assert verdict(found)["level"] == "good"
    assert "pages of text: 90 %" in reasons(found)
    assert "noise" not in reasons(metrics() | {"behaviour": {"strangers": strangers[:1]}})


def test_one_answer_is_no_fault_where_nearly_all_pictures_are_of_that_class() -> None:
    uneven = metrics() | held(accuracy=share(960, 1000), majority=0.96, confusion=[[960, 0], [40, 0]])
    assert verdict(uneven)["level"] == "bad"
    assert "nearly every picture" not in reasons(uneven)


def test_few_pictures_that_cannot_tell_are_not_called_guessing() -> None:
    found = verdict(metrics(right=5, n=6))
    assert found["level"] == "bad"
    assert found["sentence"] == "Too few pictures judge it to tell whether it is better than guessing."


def test_particulars_do_not_hide_that_a_model_guesses() -> None:
    assert len(doubts(metrics(right=500) | {"thresholds": [threshold("cat", "best-f1")]})) == 1


@pytest.mark.parametrize(
    ("seen", "alike", "level"), [(300, 70, "bad"), (0, 10, "bad"), (9, None, "care"), (0, 0, "good")]
)
def test_numbers_from_pictures_that_were_learnt_are_not_to_be_believed(
    seen: int, alike: int | None, level: str
) -> None:
    found = verdict(metrics(leaks={"checked": 1000, "seen": seen, "alike": alike, "examples": []}))
    assert found["level"] == level
    assert found["sentence"].startswith("Do not believe") == (level == "bad")


def test_leaks_come_before_everything_else() -> None:
    leaks = {"checked": 1000, "seen": 370, "alike": 0}
    assert verdict(metrics(right=500, leaks=leaks))["sentence"].startswith("Do not believe")


@pytest.mark.parametrize(("met", "level"), [(True, "good"), (False, "bad"), (None, "good")])
def test_a_failed_gate_forbids_and_one_that_could_not_be_judged_does_not(met: bool | None, level: str) -> None:
    gate = {"gate": "accuracy", "wanted": "at least 99 %", "got": "98 %", "met": met, "says": "Right are 980."}
    found = verdict(metrics(gates=[gate]))
    assert found["level"] == level
    assert ("accuracy, wanted at least 99 %, got 98 %" in reasons(metrics(gates=[gate]))) == (level == "bad")


def test_more_wrong_than_right_among_the_sorted_is_bad_even_far_above_chance() -> None:
    found = metrics() | held(accuracy=share(400, 1000), majority=0.01, sorted=share(400, 1000))
    assert verdict(found)["sentence"] == "Most of what it sorts would land in a wrong folder."


def test_a_runtime_that_disagrees_is_bad() -> None:
    assert verdict(metrics(agreement={"largest_difference": 0.02}))["level"] == "bad"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (held(sorted=share(800, 1000)), "about one picture in 5"),
        (held(unsure_share=0.4), "40 % of the pictures are set aside"),
        (held(accuracy=share(45, 50)), "Only 50 pictures judge it"),
        ({"other_parts": {"train": share(1000, 1000)}} | held(accuracy=share(850, 1000)), "learnt by heart"),
        ({"counts": {"cat": {"train": 1000}, "dog": {"train": 99}}}, "99 pictures of 'dog'"),
        ({"thresholds": [threshold("cat"), threshold("dog", "best-f1")]}, "sorts as 'dog' comes with no promise"),
        ({"thresholds": [threshold("cat", "best-f1")]}, "What it sorts comes with no promise"),
        ({"thresholds": [threshold("cat", wrong=40), threshold("dog")]}, "refute that for 'cat'"),
        (held(classes=[{"label": "dog", "n": 100, "recall_interval": [0.1, 0.3]}]), "misses most pictures of 'dog'"),
    ],
)
def test_what_asks_for_care_is_said(changed: dict[str, Any], says: str) -> None:
    found = verdict(metrics() | changed)
    assert found["level"] == "care"
    assert says in " ".join(found["reasons"])
    assert says not in reasons(metrics())


def after(error: float, low: float, floor: float, confidence: float = 0.95) -> dict[str, Any]:
    bins = [{"confidence": confidence, "accuracy": 0.9, "n": 100}]
    found = {"adaptive_ece": error, "adaptive_ece_interval": [low, 0.2], "noise_floor": floor, "bins": bins}
    return {"confidence": {"after": found}}


def test_confidences_are_doubted_only_beyond_twice_the_noise_floor_and_where_it_matters() -> None:
    assert verdict(metrics() | after(0.05, 0.04, 0.015))["level"] == "care"
    assert verdict(metrics() | after(0.05, 0.04, 0.025))["level"] == "good"
    assert verdict(metrics() | after(0.008, 0.007, 0.002))["level"] == "good"


def test_the_direction_of_wrong_confidences_is_said() -> None:
    assert "too high by 5 %" in reasons(metrics() | after(0.05, 0.04, 0.01))
    assert "too low by 5 %" in reasons(metrics() | after(0.05, 0.04, 0.01, confidence=0.8))


def test_a_promise_is_refuted_only_beyond_chance() -> None:
    # P(16 errors or more | 450 pictures, 2 %) = 0.022 and P(17 or more) = 0.010: two promises share 5 %.
    for wrong, expected in ((15, []), (16, ["cat"])):
        assert refuted(metrics(thresholds=[threshold("cat", wrong=wrong), threshold("dog")])) == expected
    # With twenty promises, errors that refute one of two refute none.
    many = [threshold("cat", wrong=16), *(threshold(str(index)) for index in range(19))]
    assert refuted(metrics(thresholds=many)) == []


def test_pooled_classes_keep_or_break_their_promise_together() -> None:
    for wrong, expected in ((30, ["cat", "dog"]), (14, [])):
        pooled = [threshold("cat", "pooled", wrong=wrong), threshold("dog", "pooled", wrong=0)]
        assert refuted(metrics(thresholds=[*pooled, threshold("cow")])) == expected


def test_best_f1_promises_nothing_that_could_be_refuted() -> None:
    assert refuted(metrics(thresholds=[threshold("cat", "best-f1", wrong=400)])) == []


@pytest.mark.parametrize("missing", [*metrics(), "everything"])
def test_missing_numbers_are_tolerated(missing: str) -> None:
    found = {} if missing == "everything" else {key: value for key, value in metrics().items() if key != missing}
    assert verdict(found)["level"] == ("care" if missing in {"everything", "held_out"} else "good")


def test_the_majority_of_an_older_file_is_counted() -> None:
    found = metrics()
    del found["held_out"]["majority"]
    assert chance(found) == 0.5


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    assert [percent(share) for share in (0, 0.0001, 0.815, 0.98, 0.99999, 1)] == [
        "0 %", "less than 0.1 %", "81.5 %", "98 %", "more than 99.9 %", "100 %",
    ]  # fmt: skip


def test_many_or_long_names_stay_a_sentence() -> None:
    assert names(["a"]) == "'a'"
    assert names(["a", "b", "c"]) == "'a', 'b' and 'c'"
    assert names(list("abcdef")) == "'a', 'b', 'c' and 3 others"
    assert len(names(["x" * 300])) < 50
