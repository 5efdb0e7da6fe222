from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from pigeonholed_training.evaluation.intervals import clopper_pearson_lower, upper_tail, wilson
from pigeonholed_training.evaluation.judged import Judged
from pigeonholed_training.evaluation.thresholds import ERROR, best_f1, certify, choose, described, large_enough, needed


def table(count: int, wrong: list[int], classes: int = 2) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Probabilities of pictures all predicted in turn as 0, 1, ...; surer and surer; those in `wrong` are wrong."""
    best = np.linspace(0.6, 0.999, count)
    predicted = np.arange(count) % classes
    probabilities = np.repeat(((1 - best) / (classes - 1))[:, None], classes, axis=1)
    probabilities[np.arange(count), predicted] = best
    targets = predicted.astype(np.int32)
    targets[wrong] = (targets[wrong] + 1) % classes
    return probabilities, targets


@pytest.mark.parametrize(("hits", "n"), [(1, 1), (0, 10), (149, 149), (235, 236), (311, 313), (50, 400), (400, 400)])
def test_the_bounds_are_those_of_scipy(hits: int, n: int) -> None:
    exact = stats.binomtest(hits, n, alternative="greater").proportion_ci(0.95, "exact").low
    assert clopper_pearson_lower(hits, n, 0.05) == pytest.approx(exact, abs=1e-9)
    assert upper_tail(hits, n, 0.98) == pytest.approx(stats.binom.sf(hits - 1, n, 0.98), abs=1e-12)
    low, high = stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(("errors", "n"), [(0, 149), (1, 236), (2, 313)])
def test_the_published_counts_for_a_precision_of_98_percent_hold(errors: int, n: int) -> None:
    assert clopper_pearson_lower(n - errors, n, 0.05) >= 0.98 > clopper_pearson_lower(n - errors - 1, n - 1, 0.05)


def test_no_trials_say_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_class_is_certified_from_the_first_sufficient_count() -> None:
    needed = math.ceil(math.log(ERROR / 2) / math.log(0.98))  # accepted without an error; lower starts take no part
    enough = next(n for n in range(needed, 2 * needed) if round(0.95 * n) == needed)
    for n, expected in ((enough, 0.5), (enough - 2, None)):
        assert certify(np.linspace(0.5, 1, n), np.ones(n, bool), 0.98, ERROR / 2) == expected


def test_nothing_is_certified_from_nothing() -> None:
    assert certify(np.array([]), np.array([], bool), 0.98, 0.05) is None


def test_ties_are_accepted_together() -> None:
    # 300 pictures of one score, a tenth of them wrong: any subset would look certifiable if its errors came last.
    right = np.arange(300) < 270
    assert certify(np.full(300, 0.9), right, 0.98, 0.05) is None


def test_a_false_certificate_is_rarer_than_promised() -> None:
    # Precision is 0.97 at every threshold, so each certificate of 0.98 is false; 5 % of them may be given.
    rng = np.random.default_rng(0)
    given = sum(certify(rng.random(400), rng.random(400) < 0.97, 0.98, 0.05) is not None for _ in range(400))
    assert given <= stats.binom.ppf(0.999, 400, 0.05)


def test_classes_with_enough_pictures_are_certified() -> None:
    chosen = choose(["a", "b"], *table(1000, []), 0.98)
    assert [threshold.method for threshold in chosen] == ["certified", "certified"]
    assert all(threshold.precision == 0.98 and threshold.n == 500 for threshold in chosen)


def test_classes_with_too_few_are_pooled_under_one_threshold() -> None:
    chosen = choose([*"abcdefghij"], *table(390, [0, 1, 2], 10), 0.98)
    assert {threshold.method for threshold in chosen} == {"pooled"}
    assert len({threshold.value for threshold in chosen}) == 1
    assert chosen[0].n >= 203
    assert [threshold.label for threshold in chosen] == [*"abcdefghij"]


def test_with_too_few_for_any_promise_almost_all_is_still_sorted() -> None:
    probabilities, targets = table(40, [0, 20])
    chosen = choose(["a", "b"], probabilities, targets, 0.98)
    assert {threshold.method for threshold in chosen} == {"best-f1"}
    accepted = probabilities.max(axis=1) >= chosen[0].value
    assert accepted.mean() >= 0.95
    assert not accepted[0], "the wrong and least sure one is left out"
    assert chosen[0].precision == pytest.approx(38 / 39)
    assert chosen[0].n == 39


def test_a_hopeless_model_does_not_call_everything_unsure() -> None:
    probabilities, targets = table(300, list(range(0, 300, 2)), 4)
    chosen = choose([*"abcd"], probabilities, targets, 0.98)
    values = np.array([threshold.value for threshold in chosen])
    assert (probabilities.max(axis=1) >= values[probabilities.argmax(axis=1)]).mean() >= 0.95


def test_best_f1_keeps_its_coverage_though_cutting_deeper_would_be_right_more_often() -> None:
    scores = np.linspace(0.5, 1, 40)
    assert (scores >= best_f1(scores, np.arange(40) >= 12)).sum() == 38


def test_a_class_that_was_never_predicted_gets_the_threshold_of_the_pool() -> None:
    probabilities, targets = table(60, [])
    probabilities = np.hstack([probabilities, np.zeros((60, 1))])
    chosen = choose(["a", "b", "never"], probabilities, targets, 0.98)
    assert chosen[2].value == chosen[0].value


def test_best_f1_accepts_everything_where_nothing_is_wrong() -> None:
    assert best_f1(np.array([0.5, 0.7, 0.9]), np.ones(3, bool)) == 0.5
    assert best_f1(np.array([]), np.array([], bool)) == 0.0


def drawn(rng: np.random.Generator, n: int, errors: npt.NDArray[np.float64]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of n pictures, and whether each is right: `errors` by rank, surest first, evenly spread."""
    ranks = rng.random(n)
    return 1.0 - ranks, rng.random(n) >= errors[(ranks * len(errors)).astype(int)]


@pytest.mark.parametrize(
    ("n", "errors"),
    [
        (200, np.full(1000, 0.0201)),  # one start takes part
        (900, np.full(1000, 0.0201)),
        (6000, np.full(1000, 0.0201)),  # all of them do
        (6000, np.where(np.arange(1000) < 100, 0.0201, 0.08)),  # only the lowest have a chance
        (3000, np.where(np.arange(1000) < 200, 0.04, 0.0152)),  # surest ones are worst
    ],
)
def test_a_broken_promise_is_rarer_than_promised_whatever_the_sure_ones_are_like(
    n: int, errors: npt.NDArray[np.float64]
) -> None:
    rng, broken, times = np.random.default_rng(1), 0, 300
    precision = 1.0 - np.cumsum(errors) / np.arange(1, len(errors) + 1)
    for _ in range(times):
        value = certify(*drawn(rng, n, errors), 0.98, 0.05)
        broken += value is not None and bool(precision[int((1.0 - value) * len(errors))] < 0.98)
    assert broken <= stats.binom.ppf(0.999, times, 0.05)


def test_a_mediocre_model_still_keeps_its_promise_for_the_pictures_it_is_sure_of() -> None:
    # 80 % right; the surest fifth has one error in 500.
    rng = np.random.default_rng(0)
    scores, right = drawn(rng, 3000, np.where(np.arange(1000) < 200, 0.002, 0.25))
    value = certify(scores, right, 0.98, 0.05)
    assert value is not None
    assert 0.15 <= (scores >= value).mean() <= 0.3


def test_a_larger_share_is_not_looked_at_once_a_smaller_one_failed() -> None:
    # 2,000 pictures: without an error to 50 %, 14 errors to 60 %, none more to 70 %, then many.
    right = np.ones(2000, bool)
    right[1001:1015] = right[1500:1900] = False
    share = ERROR / 7
    assert upper_tail(1186, 1200, 0.98) > share > upper_tail(1386, 1400, 0.98)
    scores = np.linspace(1.0, 0.5, 2000)
    assert certify(scores, right, 0.98, ERROR) == scores[999]


def test_a_class_that_is_lucky_with_few_pictures_does_not_leave_the_pool() -> None:
    # 200 of each class; those of a are all right, b has one error. Together they pass, b alone would not.
    chosen = choose(["a", "b"], *table(400, [11]), 0.98)
    assert {threshold.method for threshold in chosen} == {"pooled"}
    assert certify(np.linspace(0.5, 1, 200), np.ones(200, bool), 0.98, ERROR / 2) is not None


@pytest.mark.parametrize(("n", "enough"), [(0, False), (148, False), (379, True), (376, False)])
def test_only_a_class_that_can_afford_two_errors_is_tested_alone(n: int, enough: bool) -> None:
    assert large_enough(n, 0.98, ERROR / 2) == enough
    if enough:
        accepted = round(0.95 * n)
        assert clopper_pearson_lower(accepted - 2, accepted, ERROR / 2) >= 0.98


def test_small_sets_do_not_pay_for_starts_that_only_large_ones_can_use() -> None:
    without_error = math.ceil(math.log(ERROR) / math.log(0.98))
    n = math.ceil(without_error / 0.95)
    assert certify(np.linspace(0.5, 1, n), np.ones(n, bool), 0.98, ERROR) == 0.5


def test_a_set_that_is_all_ties_is_one_test_and_not_many() -> None:
    # One error of 236 is just enough at 5 %; shared among starts that mean the same pictures it would not be.
    assert certify(np.full(236, 1.0), np.arange(236) > 0, 0.98, 0.05) == 1.0
    assert certify(np.full(235, 1.0), np.arange(235) > 0, 0.98, 0.05) is None


def judged(count: int, wrong: list[int], chosen: int = 1000) -> Judged:
    """Pictures under thresholds that were chosen with others, which were all right."""
    thresholds = choose(["a", "b"], *table(chosen, []), 0.98)
    probabilities, targets = table(count, wrong)
    return Judged(("a", "b"), targets, probabilities.astype(np.float32), thresholds)


def test_what_a_threshold_holds_is_counted_on_the_pictures_of_its_class_above_it() -> None:
    mine = judged(100, [0, 2, 98])  # all of class a; the last of them is the surest
    values = [threshold.model_copy(update={"value": 0.7}) for threshold in mine.thresholds]
    first, second = described(mine, values)
    above = int((mine.confidence[mine.predicted == 0] >= 0.7).sum())
    assert (first["held"]["right"], first["held"]["n"]) == (above - 1, above)
    assert first["share_unsure"] == pytest.approx(1 - above / 50)
    assert second["held"]["value"] == 1.0
    assert first["label"] == "a"
    assert {"value", "method", "precision", "n"} < set(first)


def test_a_certified_class_needs_nothing_more() -> None:
    mine = judged(100, [])
    assert [row["needed"] for row in described(mine, mine.thresholds)] == [None, None]


@pytest.mark.parametrize("calibrated", [40, 120])
def test_the_number_needed_without_an_error_is_what_certifies(calibrated: int) -> None:
    mine = judged(100, [], chosen=40)
    more = described(mine, mine.thresholds, calibrated=calibrated)[0]["needed"]
    enough = calibrated // 2 + more
    fewer = math.floor(0.97 * enough)  # it is found in steps of about 2 %
    for each, method in ((enough, "certified"), (fewer, "pooled")):
        chosen = choose(["a", "b"], *table(2 * each, []), 0.98)
        assert [threshold.method for threshold in chosen] == [method, method]


def test_with_the_number_needed_at_the_rate_seen_a_certificate_is_likelier_than_not() -> None:
    rng, errors = np.random.default_rng(3), np.linspace(0.0, 0.03, 1000)
    more = needed(*drawn(rng, 20_000, errors), 0, 0.98, 0.05)
    assert more is not None
    given = np.mean([certify(*drawn(rng, more, errors), 0.98, 0.05) is not None for _ in range(300)])
    assert 0.5 <= given <= 0.97


def test_no_number_helps_a_class_that_is_mostly_wrong() -> None:
    rng = np.random.default_rng(0)
    assert needed(rng.random(30), rng.random(30) < 0.5, 30, 0.98, 0.05) is None
    assert needed(np.linspace(1.0, 0.5, 30), np.arange(30) < 10, 30, 0.98, 0.05) is None, "three sure ones mean little"
    assert needed(rng.random(3000), rng.random(3000) < 0.95, 30, 0.98, 0.05) is None


def test_a_class_that_was_never_said_is_described_too() -> None:
    mine = judged(20, [], chosen=40)
    only_a = Judged(mine.labels, mine.targets[::2], mine.probabilities[::2], mine.thresholds)
    never = described(only_a, mine.thresholds)[1]
    assert never["share_unsure"] is None
    assert never["held"]["value"] is None
    assert large_enough(never["needed"], 0.98, ERROR / 2)
    assert not large_enough(round(0.97 * never["needed"]), 0.98, ERROR / 2)
