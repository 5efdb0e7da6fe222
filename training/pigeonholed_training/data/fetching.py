"""Public data sets as folders of PNG pictures, through Keras' own loaders."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from pigeonholed_training.data.building import new_folder, require_room
from pigeonholed_training.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

_PATIENCE_S: Final = 30.0  # without a byte
_PER_PICTURE: Final = 4096  # bytes on the disk, rounded up to a block


@dataclass(frozen=True, slots=True)
class Source:
    """A data set that Keras can load.

    Attributes:
        module: of `keras.datasets`.
        labels: of its classes, by number.
    """

    module: str
    labels: tuple[str, ...]


SOURCES: Final[Mapping[str, Source]] = {
    "cifar10": Source(
        "cifar10",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "mnist": Source("mnist", tuple("0123456789")),
    "fashion-mnist": Source(
        "fashion_mnist",
        ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"),
    ),
}
"""What can be fetched, by name."""


def fetch(
    name: str, folder: Path, *, on_picture: Callable[[int, int], None] = lambda _done, _total: None
) -> dict[str, int]:
    """Writes a public data set as `train/CLASS/*.png` and `test/CLASS/*.png`; all of it or nothing.

    Keras keeps what it downloads in ~/.keras, so a second time needs no network.

    Args:
        name: one of `SOURCES`.
        folder: a new one.
        on_picture: told (done, total) as it goes.

    Returns:
        How many pictures were written for each part.

    Raises:
        WrongUsage: `folder` is there already.
        Unavailable: there is no network, or no room.
        Misconfigured: `folder` cannot be written.
    """
    source = SOURCES[name]
    with new_folder(folder, f"the data set {name}") as partial:
        parts = _loaded(name, source)
        total = sum(len(pixels) for pixels, _ in parts.values())
        require_room(folder, total * _PER_PICTURE, f"the data set {name}")
        done = 0
        for part, (pixels, targets) in parts.items():
            for path, data in _encoded(pixels, targets, source.labels):
                file = partial / part / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                done += 1
                on_picture(done, total)
        return {part: len(pixels) for part, (pixels, _) in parts.items()}


_Part = tuple["npt.NDArray[np.uint8]", "npt.NDArray[Any]"]


def _loaded(name: str, source: Source) -> dict[str, _Part]:
    """Pixels and classes of each part; Keras tells of its download on stderr."""
    from pigeonholed.classifying.keras import import_keras

    loader = getattr(import_keras().datasets, source.module)
    try:
        with contextlib.redirect_stdout(sys.stderr), _impatient():
            train, test = loader.load_data()
    except Exception as fault:  # Keras raises bare ones
        raise Unavailable(
            f"Cannot fetch {name}: {str(fault).strip().rstrip('.') or type(fault).__name__}; it is downloaded once, so "
            "try again where there is a network."
        ) from fault
    return {"train": train, "test": test}


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Gives up on a connection from which nothing comes; Keras would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _encoded(
    pixels: npt.NDArray[np.uint8], targets: npt.NDArray[Any], labels: tuple[str, ...]
) -> Iterator[tuple[str, bytes]]:
    """Path and PNG of each picture, numbered in the order of the source."""
    digits = len(str(len(pixels) - 1))
    for number, (picture, target) in enumerate(zip(pixels, np.asarray(targets).ravel().tolist(), strict=True)):
        stored = picture[:, :, ::-1] if picture.ndim == 3 else picture  # OpenCV's order of colours
        done, data = cv2.imencode(".png", stored)
        assert done
        yield os.path.join(labels[target], f"{number:0{digits}d}.png"), data.tobytes()
