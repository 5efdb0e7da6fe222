"""The summary that goes into the bundle, counted by hand."""

from __future__ import annotations

import numpy as np

from pigeonholed.bundle import Threshold
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.evaluation.judged import Judged
from pigeonholed_training.evaluation.reference import reference

THRESHOLDS = tuple(
    Threshold(label=label, value=value, method="best-f1", n=0) for label, value in (("a", 0.7), ("b", 0.5))
)


def judged(*of_a: float) -> Judged:
    probabilities = np.array([[value, 1 - value] for value in of_a], np.float32).reshape(-1, 2)
    return Judged(("a", "b"), np.zeros(len(of_a), np.int32), probabilities, THRESHOLDS)


def test_it_counts_what_was_said_and_how_surely() -> None:
    found = reference({Part.TEST: judged(0.95, 0.65, 0.45, 0.005), Part.TRAIN: judged(0.9)}, Part.TEST)
    assert found is not None
    assert (found.n, found.part, found.labels, found.unsure) == (4, "test", (2, 2), 1)
    below = dict(zip(found.levels, found.below, strict=True))
    assert (below[0.5], below[0.6], below[0.7], below[0.98], below[0.99]) == (0, 1, 2, 3, 3)


def test_without_pictures_there_is_none() -> None:
    assert reference({}, Part.TEST) is None
    assert reference({Part.TEST: judged()}, Part.TEST) is None
