"""A classifier without a network: how red, green and blue a picture is, are its probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pigeonholed.bundle import Threshold
from pigeonholed_training.evaluation.judged import Judged

LABELS = ("red", "green", "blue")


class Colours:
    """A `Classifier` of pure arithmetic that takes four pictures at a time.

    Args:
        labels: the classes; what is beyond three colours is never said.
    """

    runtime, device, precision = "arithmetic", "cpu", "f32"
    batch_sizes = (1, 2, 4)

    def __init__(self, labels: tuple[str, ...] = LABELS) -> None:
        self.labels = labels
        self.asked = 0

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        assert pixels.dtype == np.uint8
        assert len(pixels) <= self.batch_sizes[-1]
        self.asked += len(pixels)
        light = pixels.mean(axis=(1, 2)) + 1e-3
        shares = np.zeros((len(pixels), len(self.labels)), np.float32)
        shares[:, :3] = light / light.sum(axis=1, keepdims=True)
        return shares


def judged(
    probabilities: npt.ArrayLike, targets: Sequence[int], *, labels: tuple[str, ...] = LABELS, threshold: float = 0.5
) -> Judged:
    """Answers that are made up, with one threshold for every label."""
    return Judged(
        labels,
        np.array(targets, np.int32),
        np.array(probabilities, np.float32).reshape(-1, len(labels)),
        tuple(Threshold(label=label, value=threshold, method="best-f1", n=0) for label in labels),
    )


def coloured(targets: Sequence[int], height: int = 12, width: int = 16) -> npt.NDArray[np.uint8]:
    """Pictures of the pure colour of each target: uint8 [N, height, width, 3]."""
    return np.broadcast_to(
        (200 * np.eye(3, dtype=np.uint8)[list(targets)])[:, None, None], (len(targets), height, width, 3)
    ).copy()
