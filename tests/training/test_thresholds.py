from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from pigeonholed_training.evaluation.intervals import clopper_pearson_lower, upper_tail, wilson
from pigeonholed_training.evaluation.thresholds import ERROR, best_f1, certify, choose


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
    needed = math.ceil(math.log(ERROR / 2 / 3) / math.log(0.98))  # accepted without an error, of three sequences
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
