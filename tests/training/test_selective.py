from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pigeonholed_training.evaluation.judged import Judged
from pigeonholed_training.evaluation.selective import coverage_at, expected_errors, selective


def judged(confidence: np.ndarray, right: np.ndarray) -> Judged:
    """Two classes, all said to be the first with this confidence (over a half)."""
    probabilities = np.stack([confidence, 1.0 - confidence], axis=1).astype(np.float32)
    return Judged(("a", "b"), np.where(right, 0, 1).astype(np.int32), probabilities, ())


def sample(n: int, levels: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences from a half to one, on so many levels, and answers that are right as often as they say."""
    rng = np.random.default_rng(seed)
    confidence = 0.5 + rng.random(n) / 2
    if levels:
        confidence = 0.5 + np.round((confidence - 0.5) * levels) / levels
    return confidence, rng.random(n) < confidence


@pytest.mark.parametrize("levels", [0, 8])
def test_augrc_is_that_of_its_paper(levels: int) -> None:
    # Traub et al. 2024, equation 6: (1 - acc)^2 / 2 + acc (1 - acc) (1 - AUROC), AUROC of confidence against right.
    confidence, right = sample(2000, levels)
    accuracy = right.mean()
    expected = (1 - accuracy) ** 2 / 2 + accuracy * (1 - accuracy) * (1 - roc_auc_score(right, confidence))
    assert selective(judged(confidence, right))["augrc"] == pytest.approx(expected, abs=2e-6)


def test_aurc_of_a_hand_made_case_is_the_mean_risk() -> None:
    found = selective(judged(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, True])))
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=1e-6)
    assert found["curve"] == [[0.25, 0.0], [0.5, 0.5], [0.75, 0.333333], [1.0, 0.25]]


def test_the_order_of_equals_decides_nothing() -> None:
    confidence, right = sample(500, 4)
    shuffled = np.random.default_rng(1).permutation(500)
    assert selective(judged(confidence, right)) == selective(judged(confidence[shuffled], right[shuffled]))


def test_among_equals_errors_are_those_of_a_random_order() -> None:
    errors = expected_errors(np.array([0.9, 0.9, 0.9, 0.9, 0.5]), np.array([False, True, True, True, False]))
    assert errors == pytest.approx([0, 0.25, 0.5, 0.75, 1, 2])


def test_coverage_is_the_largest_share_of_one_threshold() -> None:
    confidence = np.linspace(1.0, 0.5, 100)
    right = np.ones(100, bool)
    right[[10, 60, 61, 62, 99]] = False  # precision falls to 10/11 and comes back
    assert coverage_at(confidence, right, 0.98) == pytest.approx(0.6)
    assert coverage_at(confidence, right, 0.95) == pytest.approx(1.0)
    assert coverage_at(confidence, right, 0.99) == pytest.approx(0.1)


def test_equals_are_sorted_together_or_not_at_all() -> None:
    confidence = np.array([1.0] * 10 + [0.9] * 10)
    right = np.array([True] * 10 + [True] * 5 + [False] * 5)
    assert coverage_at(confidence, right, 0.98) == 0.5
    assert coverage_at(np.full(20, 1.0), right, 0.98) == 0.0


def test_the_curve_stays_short_and_ends_with_all_pictures() -> None:
    confidence, right = sample(5000)
    curve = selective(judged(confidence, right))["curve"]
    assert len(curve) <= 200
    assert curve[-1] == [1.0, pytest.approx((~right).mean(), abs=1e-6)]
    assert curve[0][0] == pytest.approx(1 / 5000)


def test_one_picture_is_enough() -> None:
    found = selective(judged(np.array([0.9]), np.array([True])))
    assert (found["curve"], found["aurc"], found["augrc"]) == ([[1.0, 0.0]], 0.0, 0.0)
    assert found["coverage_at"] == {"0.95": 1.0, "0.98": 1.0, "0.99": 1.0}
