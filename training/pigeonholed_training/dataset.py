"""A folder of class folders as one array of pixels, without the pictures that cannot be used."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pigeonholed import imaging
from pigeonholed.bundle import BundleError, check_labels
from pigeonholed_training.errors import Misconfigured, WrongUsage
from pigeonholed_training.splitting import Shares, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of the data set: path relative to its folder, class, and SHA-256 of its bytes in hex."""

    path: str
    target: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BadPicture:
    """A file that was passed over, and why: a reason of the daemon's vocabulary and a detail."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Dataset:
    """Decoded pictures of a folder, in the order of their paths.

    Attributes:
        labels: the classes, sorted; the names of the folders.
        pictures: what was decoded; the same bytes count once in a class.
        pixels: uint8 RGB [N, H, W, 3].
        targets: int32 [N], index into `labels`.
        bad: what was passed over.
        copies: paths of pictures left out because their class has the same bytes already.
    """

    labels: tuple[str, ...]
    pictures: tuple[Picture, ...]
    pixels: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int32]
    bad: tuple[BadPicture, ...]
    copies: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the contents and classes of the pictures, in hex; names and order do not matter."""
        lines = sorted(f"{picture.sha256} {self.labels[picture.target]}\n" for picture in self.pictures)
        return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Paths of pictures whose very bytes are in more than one class."""
        classes: dict[str, set[int]] = {}
        for picture in self.pictures:
            classes.setdefault(picture.sha256, set()).add(picture.target)
        return tuple(picture.path for picture in self.pictures if len(classes[picture.sha256]) > 1)

    def parts(self, shares: Shares, seed: int) -> npt.NDArray[np.int8]:
        """The part of each picture, int8 [N] (see `splitting.split`)."""
        return split([picture.sha256 for picture in self.pictures], self.targets.tolist(), shares, seed)


def load(
    folder: Path,
    spec: imaging.PixelSpec,
    *,
    needed: int,
    workers: int = 0,
    on_picture: Callable[[int, int], None] = lambda _done, _total: None,
) -> Dataset:
    """Reads and decodes every picture below `folder`, as the daemon will.

    The folders directly in `folder` are the classes, with whatever is below them; hidden entries are passed over.

    Args:
        folder: the data set.
        spec: the pixels that the model takes.
        needed: how many different pictures each class must have at least.
        workers: threads that decode; 0 is one for each CPU.
        on_picture: told (done, total) as it goes.

    Raises:
        WrongUsage: no such folder.
        Misconfigured: fewer than two classes, names that cannot be folders beside each other, a class with too few
            usable pictures, or more pixels than memory.
    """
    files, labels = _listed(folder)
    try:
        pixels = np.empty((len(files), spec.height, spec.width, 3), np.uint8)
    except MemoryError as fault:
        raise Misconfigured(
            f"Cannot train on {folder}: {len(files)} pictures of {spec.height}x{spec.width} do not fit into memory; "
            "use fewer or a recipe with smaller pictures."
        ) from fault
    good, bad = _decode_all(folder, files, spec, pixels, workers, on_picture)
    kept, copies = _without_copies(good)
    targets = np.array([files[index][1] for index, _ in kept], np.int32)
    _require(folder, labels, targets, needed, bad)
    return Dataset(
        labels=labels,
        pictures=tuple(Picture(files[index][0], files[index][1], digest) for index, (digest, _) in kept),
        pixels=pixels if len(kept) == len(pixels) else pixels[[index for index, _ in kept]],
        targets=targets,
        bad=tuple(bad),
        copies=tuple(files[index][0] for index in copies),
    )


def _listed(folder: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """The files (relative path, class) in order, and the classes."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except NotADirectoryError as fault:
        raise WrongUsage(f"Cannot train on {folder}: it is a file, not a folder of class folders.") from fault
    except OSError as fault:
        raise WrongUsage(f"Cannot train on {folder}: {fault.strerror}.") from fault
    if len(names) < 2:
        have = f"only one, {names[0]!a}" if names else "none"
        raise Misconfigured(
            f"Cannot train on {folder}: it must hold at least two folders of pictures, one for each class, "
            f"and it holds {have}."
        )
    try:
        check_labels(names)
    except BundleError as fault:
        raise Misconfigured(f"Cannot train on {folder}: {fault} Rename that folder.") from fault
    return [(path, target) for target, name in enumerate(names) for path in _files(folder, name)], tuple(names)


def _files(folder: Path, label: str) -> Iterator[str]:
    for where, folders, names in os.walk(folder / label):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(names):
            if name[0] != ".":
                yield os.path.relpath(os.path.join(where, name), folder)


def _decode_all(
    folder: Path,
    files: list[tuple[str, int]],
    spec: imaging.PixelSpec,
    pixels: npt.NDArray[np.uint8],
    workers: int,
    on_picture: Callable[[int, int], None],
) -> tuple[list[tuple[int, tuple[str, int]]], list[BadPicture]]:
    """Fills `pixels`; returns (index, (digest, class)) of what was decoded, and what was not."""

    def decode_one(index: int) -> str | BadPicture:
        path = files[index][0]
        try:
            with open(folder / path, "rb") as stream:
                data = stream.read()
            pixels[index] = imaging.decode(data, spec).pixels
        except imaging.ImagingError as fault:
            return BadPicture(path, str(fault.reason), fault.detail)
        except OSError as fault:
            return BadPicture(path, "io-error", str(fault.strerror))
        return hashlib.sha256(data).hexdigest()

    good: list[tuple[int, tuple[str, int]]] = []
    bad: list[BadPicture] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, "decode") as pool:
        for index, result in enumerate(pool.map(decode_one, range(len(files)))):
            if isinstance(result, BadPicture):
                bad.append(result)
            else:
                good.append((index, (result, files[index][1])))
            on_picture(index + 1, len(files))
    return good, bad


def _without_copies(
    good: list[tuple[int, tuple[str, int]]],
) -> tuple[list[tuple[int, tuple[str, int]]], list[int]]:
    """Each content once in a class: a copy would count as a second witness where precision is certified."""
    seen: set[tuple[str, int]] = set()
    kept, copies = [], []
    for index, key in good:
        if key in seen:
            copies.append(index)
        else:
            seen.add(key)
            kept.append((index, key))
    return kept, copies


def _require(
    folder: Path, labels: tuple[str, ...], targets: npt.NDArray[np.int32], needed: int, bad: list[BadPicture]
) -> None:
    counts = np.bincount(targets, minlength=len(labels))
    hint = f"; {len(bad)} could not be used, first {bad[0].path!a}: {bad[0].detail}" if bad else ""
    if not len(targets):
        raise Misconfigured(f"Cannot train on {folder}: it holds no picture that can be read{hint}.")
    if counts.min() < needed:
        label, have = labels[int(counts.argmin())], int(counts.min())
        raise Misconfigured(
            f"Cannot train on {folder}: the class {label!a} has {have} different usable picture(s) and needs at least "
            f"{needed}, one for each part of the split{hint}."
        )
