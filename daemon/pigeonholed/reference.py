"""What a version of a model said of pictures that it had not learnt from: what later pictures are compared with."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

LEVELS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
"""Where shares of confidences are compared. None is above 0.99, where two runtimes differ for no reason."""


class Reference(BaseModel):
    """Counts over `n` pictures, answered by the runtime that serves; a part of `bundle.json`.

    Attributes:
        n: pictures.
        part: which ones: `test`, or `calibration` where nothing was set aside for tests.
        labels: by how many each label was said to be the best, in the order of the bundle's labels.
        levels: confidences, ascending, between 0 and 1.
        below: how many pictures were less sure of their best label than each of the levels.
        unsure: how many were below the threshold of their label.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    n: int = Field(ge=1)
    part: str = ""
    labels: tuple[int, ...]
    levels: tuple[float, ...] = Field(min_length=1, max_length=256)
    below: tuple[int, ...]
    unsure: int = Field(ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Reference:
        ascending = all(0.0 < low < high for low, high in zip((1e-9, *self.levels), (*self.levels, 1.0), strict=True))
        growing = list(self.below) == sorted(self.below) and len(self.below) == len(self.levels)
        if not ascending:
            raise ValueError("its levels do not ascend between 0 and 1")
        if not growing or not 0 <= self.below[0] <= self.below[-1] <= self.n or self.unsure > self.n:
            raise ValueError("its counts of confidences do not fit its levels and pictures")
        if min(self.labels, default=0) < 0 or sum(self.labels) != self.n:
            raise ValueError("its counts of labels do not add up to its pictures")
        return self
