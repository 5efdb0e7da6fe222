"""How the learning rate goes up and down over a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cosine", "constant", "triangle"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rate for every step: up in a straight line at first, then down to 0 by its kind.

    Attributes:
        kind: `cosine` falls along half a cosine wave, `triangle` in a straight line, `constant` not at all.
        peak: the highest rate.
        steps: of the whole training; the rate would be 0 one step after the last.
        warmup: steps before the peak, fewer than `steps`.
    """

    kind: Kind
    peak: float
    steps: int
    warmup: int = 0

    @classmethod
    def over(cls, kind: Kind, peak: float, steps: int, warmup_share: float) -> Schedule:
        """A schedule that rises over `warmup_share` (0 to 1) of its steps."""
        return cls(kind, peak, steps, min(round(warmup_share * steps), steps - 1))

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        done = min((step - self.warmup) / (self.steps - self.warmup), 1.0)
        if self.kind == "cosine":
            return self.peak * 0.5 * (1.0 + math.cos(math.pi * done))
        return self.peak * (1.0 - done) if self.kind == "triangle" else self.peak
