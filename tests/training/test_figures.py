from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from pigeonholed.bundle import Threshold
from pigeonholed_training.evaluation.figures import f1_interval, figures, macro_f1_interval, scores, share
from pigeonholed_training.evaluation.intervals import wilson
from pigeonholed_training.evaluation.judged import Judged


def judged(targets: list[int], said: list[int], classes: int, sure: float = 0.8, value: float = 0.0) -> Judged:
    """Pictures of these classes, each said to be of that one, all equally sure."""
    probabilities = np.full((len(said), classes), (1 - sure) / (classes - 1), np.float32)
    probabilities[np.arange(len(said)), said] = sure
    thresholds = tuple(Threshold(label=f"c{k}", value=value, method="best-f1", n=0) for k in range(classes))
    return Judged(tuple(f"c{k}" for k in range(classes)), np.array(targets, np.int32), probabilities, thresholds)


@pytest.fixture(scope="module")
def usual() -> Judged:
    """500 pictures of four uneven classes, four fifths right."""
    rng = np.random.default_rng(0)
    targets = rng.choice(4, 500, p=[0.5, 0.3, 0.15, 0.05])
    said = np.where(rng.random(500) < 0.8, targets, rng.integers(0, 4, 500))
    return judged(targets.tolist(), said.tolist(), 4)


def test_figures_are_those_of_scikit_learn(usual: Judged) -> None:
    found = figures(usual)
    for key, average in (("macro_f1", "f1"), ("macro_precision", "precision"), ("macro_recall", "recall")):
        score = getattr(metrics, f"{average}_score")
        assert found[key] == pytest.approx(score(usual.targets, usual.predicted, average="macro"), abs=1e-6)
    balanced = metrics.balanced_accuracy_score(usual.targets, usual.predicted)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-6)
    report = metrics.classification_report(usual.targets, usual.predicted, output_dict=True)
    for index, one in enumerate(found["classes"]):
        expected = report[str(index)]
        assert (one["precision"], one["recall"], one["f1"], one["n"]) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"], expected["support"]), abs=1e-6
        )
    assert found["accuracy"]["value"] == metrics.accuracy_score(usual.targets, usual.predicted)


def test_confusions_have_the_true_class_first() -> None:
    assert figures(judged([0, 0, 1], [0, 1, 1], 2))["confusion"] == [[1, 1], [0, 1]]


def test_always_saying_the_most_frequent_class_is_told_as_what_it_is() -> None:
    found = figures(judged([0] * 90 + [1] * 10, [0] * 100, 2))
    assert found["majority"] == found["accuracy"]["value"] == 0.9
    assert found["balanced_accuracy"] == 0.5


def test_every_share_lies_in_its_interval(usual: Judged) -> None:
    found = figures(usual)
    for one in found["classes"]:
        for key in ("precision", "recall", "f1"):
            low, high = one[f"{key}_interval"]
            assert 0 <= low < one[key] < high <= 1
    low, high = found["macro_f1_interval"]
    assert low < found["macro_f1"] < high


def test_the_interval_of_the_macro_f1_is_as_wide_as_samples_scatter() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([[0.4, 0.1], [0.05, 0.45]])
    samples = rng.multinomial(400, cells.ravel(), 2000).reshape(-1, 2, 2)
    true = [np.mean(2 * np.diag(s) / (s.sum(axis=0) + s.sum(axis=1))) for s in samples]
    low, high = macro_f1_interval((400 * cells).astype(int))
    assert (low, high) == pytest.approx(np.quantile(true, (0.025, 0.975)), abs=0.01)


def test_all_right_is_not_taken_for_certain() -> None:
    found = figures(judged([0] * 10 + [1] * 10, [0] * 10 + [1] * 10, 2))
    assert found["macro_f1_interval"] == [pytest.approx(wilson(20, 20)[0], abs=1e-6), 1.0]
    assert found["classes"][0]["f1_interval"][0] < 0.9


def test_an_f1_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits, either = 0.2, 0.25  # of all pictures
    truth, held = 2 * 0.8 / 1.8, 0
    for counts in rng.multinomial(120, [hits, either - hits, 1 - either], 1000):
        low, high = f1_interval(int(counts[0]), int(counts[0] + counts[1]))
        held += low <= truth <= high
    assert stats.binom.ppf(0.001, 1000, 0.93) <= held


def test_a_class_without_pictures_is_no_fault_of_the_model() -> None:
    found = figures(judged([0, 0, 1], [0, 0, 1], 4))
    assert found["macro_f1"] == found["balanced_accuracy"] == found["macro_recall"] == 1.0
    absent = found["classes"][2]
    assert (absent["n"], absent["precision"], absent["recall"], absent["f1"]) == (0, None, None, None)
    assert absent["f1_interval"] == absent["recall_interval"] == [0.0, 1.0]


def test_a_class_without_pictures_that_was_said_counts_against_the_model() -> None:
    found = figures(judged([0, 0, 1, 1], [0, 0, 1, 2], 3))
    assert found["classes"][2]["precision"] == 0.0
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3, abs=1e-6)
    assert found["balanced_accuracy"] == 0.75


def test_what_passes_its_threshold_is_sorted() -> None:
    mine = judged([0, 1, 1, 0], [0, 0, 1, 1], 2)
    values = tuple(t.model_copy(update={"value": v}) for t, v in zip(mine.thresholds, (0.9, 0.5), strict=True))
    found = figures(Judged(mine.labels, mine.targets, mine.probabilities, values))
    assert found["sorted"] == share(1, 2)
    assert found["unsure_share"] == 0.5


def test_proper_scores_are_those_of_their_definitions() -> None:
    probabilities, targets = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), np.array([0, 1])
    found = scores(probabilities, targets)
    assert found["nll"] == pytest.approx(-(np.log(0.7) + np.log(0.1)) / 2, abs=1e-6)
    assert found["brier"] == pytest.approx((0.09 + 0.04 + 0.01 + 0.01 + 0.81 + 0.64) / 2, abs=1e-6)


def test_scores_of_float32_that_miss_one_by_rounding_and_of_impossible_truths_are_finite() -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(300), 50).astype(np.float32) * np.float32(1.000001)
    assert np.isfinite(scores(rows, rng.integers(0, 300, 50))["nll"])
    assert np.isfinite(scores(np.array([[1, 0]], np.float32), np.array([1]))["nll"])


def test_a_thousand_classes_of_which_most_are_absent_are_plain_json() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 400, 800)
    said = np.where(rng.random(800) < 0.7, targets, rng.integers(0, 1000, 800))
    found = figures(judged(targets.tolist(), said.tolist(), 1000, sure=0.5))
    assert len(json.loads(json.dumps(found, allow_nan=False))["classes"]) == 1000


def test_one_picture_can_be_judged() -> None:
    found = figures(judged([1], [0], 2))
    assert found["accuracy"]["value"] == found["macro_f1"] == 0.0
    assert found["accuracy"]["upper"] == pytest.approx(0.793, abs=1e-3)


def test_none_of_none_has_no_share() -> None:
    assert share(0, 0) == {"value": None, "lower": 0.0, "upper": 1.0, "right": 0, "n": 0}
