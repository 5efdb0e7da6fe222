"""What is trained: a value that decides, on one CPU, which weights come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed_training.data.dataset import Dataset
    from pigeonholed_training.data.splitting import Part
    from pigeonholed_training.networks.weights import Weights
    from pigeonholed_training.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Job:
    """One training.

    Attributes:
        recipe: with all overrides applied.
        dataset: the pictures.
        parts: the `Part` of each picture, int8 [N].
        seed: of split, weights, order and augmentation.
        weights: where the network starts from.
        cache: folder of what has been made of these pictures in this size.
    """

    recipe: Recipe
    dataset: Dataset
    parts: npt.NDArray[np.int8]
    seed: int
    weights: Weights
    cache: Path

    @property
    def units(self) -> int:
        """Numbers that the network gives: one logit a class, or a single one for the second of two."""
        return self.recipe.units(len(self.dataset.labels))

    def indices(self, part: Part) -> npt.NDArray[np.intp]:
        """Which pictures are of `part`."""
        return np.flatnonzero(self.parts == part)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be gone on with."""
        return {
            "recipe": {key: value for key, value in self.recipe.as_dict().items() if key not in ("purpose", "twin")},
            "labels": list(self.dataset.labels),
            "data_fingerprint": self.dataset.fingerprint,
            "seed": self.seed,
            "weights": self.weights.digest,
        }
