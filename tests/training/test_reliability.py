from __future__ import annotations

import numpy as np
import pytest

from pigeonholed_training.evaluation.calibration import softmax
from pigeonholed_training.evaluation.judged import Judged
from pigeonholed_training.evaluation.reliability import (
    confidence,
    equal_mass,
    equal_width_error,
    error_interval,
    noise_floor,
)


def honest(n: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and true classes drawn from exactly what they say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    targets = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits, targets.clip(0, classes - 1).astype(np.int32)


def judged(logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> Judged:
    probabilities = softmax(logits, temperature).astype(np.float32)
    labels = tuple(f"c{index}" for index in range(logits.shape[1]))
    return Judged(labels, targets, probabilities, (), temperature)


@pytest.fixture(scope="module")
def overconfident() -> dict[str, dict]:
    """A network that says everything three times too loudly, before and after the temperature that mends it."""
    logits, targets = honest(3000)
    return confidence(judged(3 * logits, targets, 3.0))


def test_calibration_brings_the_error_down_to_its_noise_floor(overconfident: dict[str, dict]) -> None:
    before, after = overconfident["before"], overconfident["after"]
    assert after["adaptive_ece"] <= after["noise_floor_95"] < before["adaptive_ece"] / 3
    assert after["nll"] < before["nll"]
    assert after["brier"] < before["brier"]
    assert after["ece"] < before["ece"]


def test_before_is_what_the_network_said_itself() -> None:
    logits, targets = honest(400)
    raw = confidence(judged(2 * logits, targets))["after"]
    before = confidence(judged(2 * logits, targets, 2.0))["before"]
    assert before["adaptive_ece"] == pytest.approx(raw["adaptive_ece"], abs=1e-5)
    assert before["nll"] == pytest.approx(raw["nll"], abs=1e-5)


def test_bins_account_for_every_picture_and_rise(overconfident: dict[str, dict]) -> None:
    bins = overconfident["after"]["bins"]
    assert [one["n"] for one in bins] == [200] * 15
    assert sorted(one["confidence"] for one in bins) == [one["confidence"] for one in bins]
    assert all(one["lower"] <= one["accuracy"] <= one["upper"] for one in bins)
    gaps = sum(one["n"] * abs(one["confidence"] - one["accuracy"]) for one in bins) / 3000
    assert gaps == pytest.approx(overconfident["after"]["adaptive_ece"], abs=1e-5)


def test_the_noise_floor_is_what_calibrated_models_show() -> None:
    floors, errors = [], []
    for seed in range(60):
        logits, targets = honest(300, seed=seed)
        probabilities = softmax(logits)
        binned = equal_mass(probabilities.max(axis=1), probabilities.argmax(axis=1) == targets)
        errors.append(binned.error)
        floors.append(noise_floor(binned))
    mean, high = np.mean(floors, axis=0)
    assert np.mean(errors) == pytest.approx(mean, rel=0.08)
    assert 0 <= np.mean(np.array(errors) > high) <= 0.15


def test_the_noise_floor_is_that_of_the_notes_for_a_model_that_is_right_in_96_percent() -> None:
    # Half-normal in each bin: sqrt(2 / pi) of the standard deviations, summed.
    binned = equal_mass(np.linspace(0.92, 1.0, 1500), np.ones(1500, bool))
    spread = [np.sqrt((p * (1 - p)).sum()) for p in np.array_split(binned.confidence, 15)]
    floor, high = noise_floor(binned)
    assert floor == pytest.approx(np.sqrt(2 / np.pi) * np.sum(spread) / 1500, rel=0.05)
    assert floor < high < 2 * floor


@pytest.mark.parametrize("order", [0, 1, 2])
def test_equal_confidences_share_a_bin_whatever_their_order(order: int) -> None:
    # 700 of 1,000 are at exactly 1; the wrong ones among them come first, last, or anywhere.
    best = np.concatenate([np.linspace(0.5, 0.99, 300), np.ones(700)])
    right = np.ones(1000, bool)
    right[300:307] = False
    if order:
        permutation = np.arange(999, -1, -1) if order == 1 else np.random.default_rng(0).permutation(1000)
        best, right = best[permutation], right[permutation]
    binned = equal_mass(best, right)
    assert len(np.unique(binned.bins[best == 1.0])) == 1
    assert binned.error == pytest.approx((7 + (1 - np.linspace(0.5, 0.99, 300)).sum()) / 1000)


def test_a_group_of_equals_lies_in_the_bin_of_its_middle() -> None:
    # The ranks 10 to 65 of 100, of five bins of 20: the middle is in the second.
    best = np.concatenate([np.linspace(0.5, 0.6, 10), np.full(55, 0.7), np.linspace(0.8, 0.9, 35)])
    binned = equal_mass(best, np.ones(100, bool))
    assert np.bincount(binned.bins).tolist() == [10, 55, 15, 20]


def test_few_pictures_get_few_bins() -> None:
    assert equal_mass(np.linspace(0.5, 1, 10), np.ones(10, bool)).count == 1
    assert equal_mass(np.linspace(0.5, 1, 60), np.ones(60, bool)).count == 3
    assert equal_mass(np.linspace(0.5, 1, 10_000), np.ones(10_000, bool)).count == 15


def test_the_error_in_bins_of_equal_width_counts_each_bin_by_its_size() -> None:
    best, right = np.array([0.9] * 8 + [0.3] * 2), np.array([True] * 6 + [False] * 4)
    assert equal_width_error(best, right) == pytest.approx((8 * 0.15 + 2 * 0.3) / 10)
    assert equal_width_error(np.ones(5), np.ones(5, bool)) == 0.0
    apart = equal_width_error(np.array([0.59, 0.61]), np.array([True, False]))  # the ninth bin ends at 0.6
    assert apart == pytest.approx((0.41 + 0.61) / 2)


@pytest.mark.parametrize("loudness", [1.0, 1.2, 3.0])
def test_the_interval_holds_the_true_error_about_as_often_as_it_says(loudness: float) -> None:
    below = above = 0
    for seed in range(40):
        logits, targets = honest(400, seed=seed)
        said = softmax(logits * loudness)
        best = said.argmax(axis=1)
        binned = equal_mass(said.max(axis=1), best == targets)
        low, high = error_interval(binned, noise_floor(binned)[1])
        assert low <= binned.error <= high
        meant = softmax(logits)[np.arange(400), best]
        true_error = np.abs(np.bincount(binned.bins, said.max(axis=1) - meant)).sum() / 400
        below += true_error < low - 1e-12
        above += true_error > high
    assert max(below, above) <= 6  # 2.5 % each way would be one of 40; the estimate is a little biased


def test_the_same_answers_are_judged_the_same_way() -> None:
    logits, targets = honest(200)
    assert confidence(judged(logits, targets)) == confidence(judged(logits, targets))


def test_one_picture_can_be_judged() -> None:
    found = confidence(judged(np.array([[2.0, 0.0]]), np.array([0], np.int32)))["after"]
    assert found["adaptive_ece"] == pytest.approx(1 - 1 / (1 + np.exp(-2.0)), abs=1e-5)
    assert [one["n"] for one in found["bins"]] == [1]


def test_probabilities_of_nothing_and_of_one_are_no_trouble() -> None:
    mine = Judged(("a", "b"), np.array([0, 1], np.int32), np.array([[1, 0], [1, 0]], np.float32), (), 0.5)
    found = confidence(mine)
    assert np.isfinite(found["after"]["nll"])
    assert np.isfinite(found["before"]["nll"])
    assert found["after"]["adaptive_ece"] == pytest.approx(0.5)
