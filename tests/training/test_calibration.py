from __future__ import annotations

import numpy as np
import pytest

from pigeonholed_training.evaluation.calibration import as_logits, fit_temperature, negative_log_likelihood, softmax


def sampled(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets drawn from exactly the probabilities that these logits say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.5, (count, 5))
    uniform = rng.random((count, 1))
    targets = (softmax(logits).cumsum(axis=1) < uniform).sum(axis=1).astype(np.int32)
    return logits, targets


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_overconfidence_is_measured_and_taken_back(factor: float) -> None:
    logits, targets = sampled(20_000)
    assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.04)


def test_no_other_temperature_is_likelier() -> None:
    logits, targets = sampled(2_000)
    fitted = fit_temperature(logits * 2, targets)
    best = negative_log_likelihood(logits * 2, targets, fitted)
    for other in np.geomspace(0.1, 10, 60):
        assert negative_log_likelihood(logits * 2, targets, other) > best - 1e-4


def test_all_right_does_not_mean_certain() -> None:
    logits = np.tile(np.array([[6.0, 0.0, 0.0]]), (50, 1))
    temperature = fit_temperature(logits, np.zeros(50, np.int32))
    assert 0.99 < softmax(logits, temperature).max() < 0.9999


def test_logits_of_probabilities_give_them_back_also_where_they_vanish() -> None:
    probabilities = np.array([[0.7, 0.3, 0.0], [1.0, 0.0, 0.0]], np.float32)
    assert softmax(as_logits(probabilities)) == pytest.approx(probabilities, abs=1e-7)


def test_temperature_never_changes_which_class_is_best() -> None:
    logits, _ = sampled(500)
    assert np.array_equal(softmax(logits, 4.0).argmax(axis=1), logits.argmax(axis=1))


def test_the_few_errors_of_a_good_network_do_not_make_it_cocksure() -> None:
    # 200 pictures, one of them wrong by a hair: the likelihood alone would call everything else certain.
    logits = np.tile(np.array([[4.0, 0.0, 0.0]]), (200, 1))
    logits[0] = (0.05, 0.0, 0.0)
    targets = np.zeros(200, np.int32)
    targets[0] = 1
    temperature = fit_temperature(logits, targets)
    assert 0.5 < temperature < 0.8
