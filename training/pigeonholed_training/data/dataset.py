"""A data set as training sees it: pictures that can be used, their classes, and pixels that stay on the disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pigeonholed_training.data import cache as caches
from pigeonholed_training.data import likeness, sources
from pigeonholed_training.data.splitting import Part, Shares, split
from pigeonholed_training.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.imaging import PixelSpec
    from pigeonholed_training.data.rows import Rows

_LINK = "a symbolic link that leads out of the data set or to a folder; it is not followed"


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of the data set: its path as the source has it, class, and SHA-256 of its bytes in hex."""

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
    """Decoded pictures, in the order of their source.

    Attributes:
        labels: the classes, sorted.
        pictures: what was decoded; the same bytes count once in a class.
        targets: int32 [N], index into `labels`.
        groups: int32 [N]; the same number: the same bytes or nearly the same picture.
        given: int8 [N], the `Part` that the source says; `Part.NONE` where it leaves that open.
        bad: what was passed over.
        copies: paths of pictures left out because their class has the same bytes already.
        thumbnails: uint8 [N, 256], each squeezed to 16x16 in grey, by which likeness is told.
        rows: the pixels.
    """

    labels: tuple[str, ...]
    pictures: tuple[Picture, ...]
    targets: npt.NDArray[np.int32]
    groups: npt.NDArray[np.int32]
    given: npt.NDArray[np.int8]
    bad: tuple[BadPicture, ...]
    copies: tuple[str, ...]
    thumbnails: npt.NDArray[np.uint8]
    rows: Rows

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the contents, classes and given parts of the pictures, in hex; names and order do not matter."""
        lines = sorted(
            f"{picture.sha256} {self.labels[picture.target]}{'' if part < 0 else f' {Part(part).name.lower()}'}\n"
            for picture, part in zip(self.pictures, self.given.tolist(), strict=True)
        )
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
        digests = [picture.sha256 for picture in self.pictures]
        return split(digests, self.targets.tolist(), shares, seed, groups=self.groups, given=self.given)

    def read(self, indices: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Copies pictures from the disk: uint8 RGB [n, H, W, 3]. Safe from several threads, which it does not hold up.

        Args:
            indices: integers [n] into `pictures`; the same one may come twice.
        """
        return self.rows.read(indices)

    def chunks(self, indices: npt.ArrayLike, size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields what `read` would give, in order, at most `size` pictures at a time."""
        wanted = np.asarray(indices, np.int64).reshape(-1)
        for start in range(0, len(wanted), size):
            yield self.read(wanted[start : start + size])


def load(
    data: Path,
    spec: PixelSpec,
    *,
    cache: Path,
    shares: Shares | None,
    workers: int = 0,
    on_picture: Callable[[int, int], None] = lambda _done, _total: None,
    say: Callable[[str], None] = lambda _sentence: None,
) -> Dataset:
    """Finds the pictures of a data set and sees to it that each has been decoded as the daemon will.

    Args:
        data: folder or list (`sources.find`).
        spec: the pixels that the model takes.
        cache: folder of all caches; below it each data set has its own for each size.
        shares: of the split; each class needs a picture for each part that the source does not give. None where nothing
            shall be split, because the pictures only judge.
        workers: threads that decode; 0 is one for each CPU.
        on_picture: told (done, total) as it goes.
        say: told, in a sentence, why it takes long or what is unusual.

    Raises:
        WrongUsage: there is no such folder or list.
        Misconfigured: it is no data set, or a class has too few usable pictures, or the cache cannot be written.
        Unavailable: the disk is full, or would be.
    """
    listing = sources.find(data)
    pixels = caches.PixelCache(caches.place(cache, data, spec), spec, say=say)
    paths = [entry.path for entry in listing.entries]
    contents = pixels.fill(listing.root, paths, workers=workers, on_picture=on_picture)
    loaded = _assembled(listing, contents)
    if shares is not None:
        _require(data, loaded, shares)
    elif not loaded.pictures:
        raise Misconfigured(f"Cannot judge by {data}: it holds no picture that can be read{_hint(loaded)}.")
    return loaded


def _assembled(listing: sources.Listing, contents: caches.Contents) -> Dataset:
    """What the source says and what the cache has, side by side."""
    entries = [listing.entries[index] for index in contents.kept]
    digests = [contents.records[index].sha256 for index in contents.kept]
    kept, copies = _without_copies(entries, digests)
    pictures = tuple(Picture(entries[index].path, entries[index].target, digests[index]) for index in kept)
    thumbnails = contents.thumbnails[np.array(kept, np.int64)]
    none = np.empty(0, np.int32)
    groups = likeness.groups([picture.sha256 for picture in pictures], thumbnails) if pictures else none
    return Dataset(
        labels=listing.labels,
        pictures=pictures,
        targets=np.array([picture.target for picture in pictures], np.int32),
        groups=groups,
        given=np.array([_given(entries[index]) for index in kept], np.int8),
        bad=(
            *(
                BadPicture(entry.path, record.reason, record.detail)
                for entry, record in zip(listing.entries, contents.records, strict=True)
                if not record.is_picture
            ),
            *(BadPicture(path, "io-error", _LINK) for path in listing.astray),
        ),
        copies=tuple(entries[index].path for index in copies),
        thumbnails=thumbnails,
        rows=contents.rows.subset(np.array(kept, np.int64)),
    )


def _without_copies(entries: Sequence[sources.Entry], digests: Sequence[str]) -> tuple[list[int], list[int]]:
    """Each content once in a class: a copy would count as a second witness where precision is certified.

    Which one stays: the one that the source holds back for test, then for calibration, then for validation; it must not
    be learned by heart from its copy in train. Else the first.
    """
    first: dict[tuple[str, int], int] = {}
    for index, (entry, digest) in enumerate(zip(entries, digests, strict=True)):
        best = first.setdefault((digest, entry.target), index)
        if _given(entry) > max(Part.TRAIN, _given(entries[best])):
            first[digest, entry.target] = index
    kept = sorted(first.values())
    stays = set(kept)
    return kept, [index for index in range(len(entries)) if index not in stays]


def _given(entry: sources.Entry) -> Part:
    return Part.NONE if entry.part is None else entry.part


def _require(data: Path, loaded: Dataset, shares: Shares) -> None:
    """Every class has something for every part that must still be cut off (see `splitting.split`)."""
    groups, hint = loaded.groups, _hint(loaded)
    if not loaded.pictures:
        raise Misconfigured(f"Cannot train on {data}: it holds no picture that can be read{hint}.")
    held = loaded.given > Part.TRAIN
    needed = len([part for part in shares.parts if part not in loaded.given[held]])
    unheld = ~np.isin(groups, groups[held])
    for target, label in enumerate(loaded.labels):
        mine = unheld & (loaded.targets == target)
        have = len(np.unique(groups[mine]))
        if have < needed:
            where = " that are not nearly the same as one held back" if held.any() else ""
            alike = f", {have} of them unlike each other," if have < mine.sum() else ""
            raise Misconfigured(
                f"Cannot train on {data}: the class {label!a} has {mine.sum()} different usable picture(s){where}"
                f"{alike} and needs at least {needed}, one for each part of the split{hint}."
            )


def _hint(loaded: Dataset) -> str:
    """The end of a sentence about what is missing: what could not be used."""
    bad = loaded.bad
    return f"; {len(bad)} could not be used, first {bad[0].path!a}: {bad[0].detail}" if bad else ""
