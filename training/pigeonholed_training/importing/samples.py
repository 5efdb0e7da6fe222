"""Pictures whose class is known, to try an imported model on; and made ones where there are none."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pigeonholed_training.data import dataset as datasets
from pigeonholed_training.data import sources
from pigeonholed_training.data.splitting import Part, Shares, allot
from pigeonholed_training.errors import Misconfigured, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.imaging import PixelSpec
    from pigeonholed_training.data.dataset import Dataset

ENOUGH = 40
"""Pictures from which on half of them calibrate and the other half judges."""


@dataclass(frozen=True)
class Samples:
    """Decoded pictures with their classes.

    Attributes:
        dataset: the pictures.
        targets: true class among the labels of the model, int32 [N].
        fitted: indices of those that temperature, thresholds and rule are fitted on; empty where there are too few.
        judged: indices of those that judge.
    """

    dataset: Dataset
    targets: npt.NDArray[np.int32]
    fitted: npt.NDArray[np.intp]
    judged: npt.NDArray[np.intp]

    @property
    def tried(self) -> npt.NDArray[np.intp]:
        """Those that rules are tried on: never those that judge, where there are others."""
        return self.fitted if len(self.fitted) else self.judged


def check_folders(folder: Path, labels: Sequence[str]) -> None:
    """Finds out, before anything slow, whether the folder's classes are among the labels.

    Raises:
        TrainingError: they are not, or it is no folder of class folders.
    """
    with _reworded():
        found = sources.find(folder).labels
    unknown = [label for label in found if label not in labels]
    if unknown:
        known = f"{', '.join(labels[:8])}{' and others' if len(labels) > 8 else ''}"
        raise Misconfigured(
            f"Cannot try the model on {folder}: its folder {unknown[0]!a} is none of the labels ({known}); "
            "give the folders the names of the labels."
        )


def load(
    folder: Path, labels: Sequence[str], spec: PixelSpec, cache: Path, on_picture: Callable[[int, int], None]
) -> Samples:
    """Decodes the pictures as the daemon will, and cuts them in two halves by content where they suffice.

    Raises:
        TrainingError: no data set, a class with less than three different pictures, no room for the decoded ones.
    """
    with _reworded():
        found = datasets.load(folder, spec, cache=cache, shares=Shares(), on_picture=on_picture)
    place = np.array([labels.index(label) for label in found.labels], np.int32)
    everything = np.arange(len(found.pictures))
    fitted, judged = everything[:0], everything
    if len(everything) >= ENOUGH:
        digests = [picture.sha256 for picture in found.pictures]
        parts = allot(digests, found.targets.tolist(), {Part.TEST: 0.5}, "import", found.groups)
        fitted, judged = np.flatnonzero(parts == Part.TRAIN), np.flatnonzero(parts == Part.TEST)
    return Samples(found, place[found.targets], fitted, judged)


def made(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Pictures of nothing, uint8 RGB [32, height, width, 3], the most different first: plain colours, ramps, noise.

    Not noise alone: to most networks all noise is the same, and then a comparison would compare nothing.
    """
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    ramps = [np.stack([down, across, 1 - down], axis=-1), np.stack([across, 1 - across, down * across], axis=-1)]
    noise = [
        cv2.resize(rng.random((cells, cells, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for cells in (2, 4, 8, 16)
    ]
    plain = [np.broadcast_to(colour, (height, width, 3)) for colour in rng.random((26, 3), np.float32)]
    return np.stack([np.clip(255 * one, 0, 255).astype(np.uint8) for one in (*plain[:4], *ramps, *noise, *plain[4:])])


@contextlib.contextmanager
def _reworded() -> Iterator[None]:
    """Complaints of what was written for training are about trying here."""
    try:
        yield
    except TrainingError as fault:
        raise type(fault)(str(fault).replace("Cannot train on", "Cannot try the model on")) from fault
