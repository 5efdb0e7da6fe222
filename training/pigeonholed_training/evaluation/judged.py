"""What the served model said of pictures whose class is known: where every judgement starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pigeonholed_training.evaluation.calibration import as_logits, softmax

if TYPE_CHECKING:
    import numpy.typing as npt

    from pigeonholed.bundle import Threshold


@dataclass(frozen=True)
class Judged:
    """Answers through the runtime that serves.

    Attributes:
        labels: the classes.
        targets: true class, int32 [N].
        probabilities: calibrated, float32 [N, K].
        thresholds: one for each label, in the same order.
        temperature: that the probabilities were calibrated with.
    """

    labels: tuple[str, ...]
    targets: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    thresholds: tuple[Threshold, ...]
    temperature: float = 1.0

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def predicted(self) -> npt.NDArray[np.intp]:
        """The best class of each picture, int [N]."""
        best: npt.NDArray[np.intp] = self.probabilities.argmax(axis=1)
        return best

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of the best class, float32 [N]."""
        best: npt.NDArray[np.float32] = self.probabilities.max(axis=1)
        return best

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the best class is the true one, bool [N]."""
        return np.asarray(self.predicted == self.targets)

    @property
    def passes(self) -> npt.NDArray[np.bool_]:
        """Whether the confidence reaches the threshold of its class, so that the picture is sorted, bool [N]."""
        values = np.array([threshold.value for threshold in self.thresholds])
        return np.asarray(self.confidence >= values[self.predicted])

    @property
    def uncalibrated(self) -> npt.NDArray[np.float64]:
        """The probabilities with a temperature of 1, float64 [N, K]."""
        return softmax(as_logits(self.probabilities) * self.temperature)


@dataclass(frozen=True)
class Example:
    """A picture to show, with what was said of it.

    Attributes:
        pixels: what the network saw, uint8 RGB [H, W, 3].
        label: its true class; None where it has none.
        said: (label, calibrated probability), best first, three at most.
        outcome: what the thresholds make of it.
        note: where it is from or what was done to it, as `cat/17.jpg` or `60 % dog + 40 % cat`.
    """

    pixels: npt.NDArray[np.uint8]
    label: str | None
    said: tuple[tuple[str, float], ...]
    outcome: Literal["sorted", "unsure"]
    note: str = ""

    @property
    def is_right(self) -> bool | None:
        """Whether the best label is the true one; None where there is none."""
        return None if self.label is None else self.said[0][0] == self.label
