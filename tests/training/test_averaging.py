from __future__ import annotations

import numpy as np
import pytest

from pigeonholed_training.fitting.averaging import Average


def test_an_average_forgets_its_beginning_and_then_follows_slowly() -> None:
    average = Average(0.99, [np.zeros(2, np.float32), np.array(3)])
    average.update([np.ones(2, np.float32), np.array(5)], 1, 1)
    assert average.weights[0] == pytest.approx(1 - 2 / 11)
    assert average.weights[1] == 5  # a counter, which has no average
    average.update([np.ones(2, np.float32) * 100, np.array(6)], 100_000, 1)
    assert average.weights[0] == pytest.approx(0.99 * (1 - 2 / 11) + 1)


def test_several_steps_at_once_count_as_often() -> None:
    several, single = (Average(0.9, [np.zeros(1, np.float32)]) for _ in range(2))
    several.update([np.ones(1, np.float32)], 1000, 4)
    for _ in range(4):
        single.update([np.ones(1, np.float32)], 1000, 1)
    assert several.weights[0] == pytest.approx(single.weights[0])
