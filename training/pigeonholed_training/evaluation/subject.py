"""What a model is judged by: pictures whose class is known, and which of them it has not learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from pigeonholed_training.data.dataset import Dataset

UNSEEN = "They served nothing else."
FITTED_ON = (
    "Temperature and thresholds were fitted on these same pictures: that cannot change which class is best, but the "
    "shares after thresholds are a little kind."
)
LOOKED_AT = 2000  # pictures at most of those that were trained on, to say how well they are known


@dataclass(frozen=True)
class Subject:
    """Pictures in their parts.

    Attributes:
        dataset: the pictures.
        targets: true class among the labels of the model, int32 [N].
        parts: indices of the pictures of each part, at least one; of `TRAIN` a sample.
        judged: the part that judges.
        note: what should be known about it.
    """

    dataset: Dataset
    targets: npt.NDArray[np.int32]
    parts: Mapping[Part, npt.NDArray[np.intp]]
    judged: Part
    note: str


def held_back(dataset: Dataset, parts: npt.NDArray[np.int8], seed: int) -> Subject:
    """What a training held back, and a sample of what it learnt from.

    Args:
        dataset: the pictures.
        parts: the `Part` of each, int8 [N].
        seed: of the sample.
    """
    indices: dict[Part, npt.NDArray[np.intp]] = {
        part: np.flatnonzero(parts == part) for part in Part if part is not Part.NONE
    }
    known = indices[Part.TRAIN]
    if len(known) > LOOKED_AT:
        indices[Part.TRAIN] = np.sort(np.random.default_rng(seed).choice(known, LOOKED_AT, replace=False))
    judged = Part.TEST if len(indices[Part.TEST]) else Part.CALIBRATION
    filled = {part: chosen for part, chosen in indices.items() if len(chosen)}
    return Subject(dataset, dataset.targets, filled, judged, UNSEEN if judged is Part.TEST else FITTED_ON)


def of_pictures(dataset: Dataset, labels: Sequence[str]) -> Subject:
    """Pictures from elsewhere: what their source sets aside for tests, else all of them.

    Raises:
        Misconfigured: they have a class that the model does not know.
    """
    unknown = [label for label in dataset.labels if label not in labels]
    if unknown:
        raise Misconfigured(
            f"Cannot judge by these pictures: the model does not know their class {unknown[0]!a}; it knows "
            f"{', '.join(labels[:8])}{' and others' if len(labels) > 8 else ''}. Give the folders the model's labels."
        )
    place = np.array([labels.index(label) for label in dataset.labels], np.int32)
    test = np.flatnonzero(dataset.given == Part.TEST)
    chosen = test if len(test) else np.arange(len(dataset.pictures))
    return Subject(dataset, place[dataset.targets], {Part.TEST: chosen}, Part.TEST, "They were given to judge by.")
