"""Looking a data set over before it is trained on: what is broken, what is there twice, what contradicts itself."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pigeonholed.images import Reason
from pigeonholed_training.data import likeness, sources
from pigeonholed_training.data.findings import ClassSummary, Finding, Item, Kind, Report, name_of
from pigeonholed_training.data.inspecting import Inspected, are_saved_anew, inspect
from pigeonholed_training.data.splitting import Part, Shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

_TINY: Final = 8  # pixels: a smaller side shows nothing
_SMALL: Final = 32  # pixels: a smaller side is too small among pictures that are _TIMES larger
_TIMES: Final = 4
_SCARCE: Final = 50  # different pictures in a class
_UNEVEN: Final = 3.0  # times the pictures of another class
_PLAIN: Final = 2.0  # grey levels: standard deviation over the thumbnail
_GREY: Final = 0.5  # difference between the shares of grey pictures in two classes
_LOOKED_AT: Final = 2000  # near pairs across classes that are compared again, closely


@dataclass(frozen=True)
class _Looked:
    """The data set while it is judged.

    Attributes:
        files: of the source, in order.
        good: indices of the pictures among them.
        groups: int32, for each of `good` the number of its group of copies and near-duplicates.
        near: (index, index, distance) of near-duplicates, the first of each content, indices into `files`.
    """

    root: Path
    labels: tuple[str, ...]
    files: tuple[Inspected, ...]
    thumbnails: npt.NDArray[np.uint8]
    good: tuple[int, ...]
    groups: npt.NDArray[np.int32]
    near: tuple[tuple[int, int, float], ...]

    def by_content(self) -> dict[str, list[Inspected]]:
        """The pictures with the same bytes, what is held back first, then in order."""
        same: dict[str, list[Inspected]] = defaultdict(list)
        for index in self.good:
            same[self.files[index].sha256].append(self.files[index])
        for files in same.values():
            if len(files) > 1:
                files.sort(key=lambda file: (-(file.part or 0), os.path.islink(self.root / file.path)))
        return same

    def by_group(self) -> dict[int, list[Inspected]]:
        """The pictures of each group that has several."""
        grouped: dict[int, list[Inspected]] = defaultdict(list)
        for index, number in zip(self.good, self.groups.tolist(), strict=True):
            grouped[number].append(self.files[index])
        return {number: files for number, files in grouped.items() if len(files) > 1}


def check(
    data: Path, *, workers: int = 0, on_picture: Callable[[int, int], None] = lambda _done, _total: None
) -> Report:
    """Looks a data set over; changes nothing.

    Args:
        data: folder or list (`sources.find`).
        workers: threads; 0 is one for each CPU.
        on_picture: told (done, total) as it goes.

    Raises:
        WrongUsage, Misconfigured: it is no data set, see `sources.find`.
    """
    listing = sources.find(data)
    files, thumbnails = inspect(listing, workers=workers, on_picture=on_picture)
    looked = _looked(listing, files, thumbnails)
    found = {
        Kind.FEW: _few(looked),
        Kind.CONTRADICTION: _contradictions(looked),
        Kind.NEAR_CONTRADICTION: _near_contradictions(looked),
        Kind.LEAK: _leaks(looked),
        **_refused(files, listing.astray),
        Kind.TINY: _tiny(looked),
        Kind.COPIES: _copies(looked),
        Kind.NEAR_COPIES: _near_copies(looked),
        Kind.MISNAMED: _misnamed(looked),
        Kind.PLAIN: _plain(looked),
    }
    summaries = _summaries(looked)
    found |= {Kind.SCARCE: _scarce(summaries), Kind.IMBALANCE: _imbalance(summaries), Kind.GREY: _grey(summaries)}
    items = {kind: tuple(cases) for kind, cases in found.items()}
    findings = tuple(Finding(kind, items[kind]) for kind in Kind if items[kind])
    return Report(data, listing.root, listing.kind, files, summaries, findings)


def _looked(listing: sources.Listing, files: tuple[Inspected, ...], thumbnails: npt.NDArray[np.uint8]) -> _Looked:
    good = tuple(index for index, file in enumerate(files) if file.is_picture)
    digests = np.array([files[index].sha256 for index in good], np.str_)
    _, firsts, same = np.unique(digests, return_index=True, return_inverse=True)
    first = np.array(good, np.int64)[firsts]
    near = likeness.pairs(thumbnails[first])
    numbers = likeness.joined(len(first), near.first, near.second)
    distances = near.distance.tolist()
    return _Looked(
        listing.root,
        listing.labels,
        files,
        thumbnails,
        good,
        numbers[same],
        tuple(zip(first[near.first].tolist(), first[near.second].tolist(), distances, strict=True)),
    )


def _few(looked: _Looked) -> Iterator[Item]:
    """Classes with fewer different pictures than parts to be cut, counted as `dataset.load` does."""
    files = [looked.files[index] for index in looked.good]
    held = np.array([(file.part or 0) > Part.TRAIN for file in files], np.bool_)
    given = {file.part for file in files}
    needed = len([part for part in Shares().parts if part is Part.TRAIN or part not in given])
    free = ~np.isin(looked.groups, looked.groups[held])
    targets = np.array([file.target for file in files], np.int64)
    for target, label in enumerate(looked.labels):
        have = len(np.unique(looked.groups[free & (targets == target)]))
        if have < needed:
            yield Item((), f"{label}: {have} different usable picture(s) to learn from; {needed} are the least")


def _contradictions(looked: _Looked) -> Iterator[Item]:
    for files in looked.by_content().values():
        if len({file.target for file in files}) > 1:
            # Nothing here says which class is right, and learning from the wrong one is worse than from neither.
            paths = tuple(file.path for file in files)
            yield Item(paths, _classes(looked, files), paths)


def _near_contradictions(looked: _Looked) -> Iterator[Item]:
    """Set aside is only what is the same picture saved anew, not two alike that differ in what makes their class."""
    same = looked.by_content()
    compared = 0
    for one, other, distance in sorted(looked.near, key=lambda pair: pair[2]):
        pair = (looked.files[one], looked.files[other])
        files = [file for member in pair for file in same[member.sha256]]
        # Where one content is in both classes, that is the graver fault, and told there.
        if len({file.target for file in files}) < 2 or any(_is_torn(same[member.sha256]) for member in pair):
            continue
        compared += 1
        sure = compared <= _LOOKED_AT and are_saved_anew(looked.root, *pair)
        paths = tuple(file.path for file in files)
        detail = f"{_classes(looked, files)}; {'the same picture' if sure else f'{1 - distance:.0%} alike'}"
        yield Item(paths, detail, paths if sure else ())


def _is_torn(files: Sequence[Inspected]) -> bool:
    return len({file.target for file in files}) > 1


def _classes(looked: _Looked, files: Iterable[Inspected]) -> str:
    return " and ".join(sorted({looked.labels[file.target] for file in files}))


def _leaks(looked: _Looked) -> Iterator[Item]:
    """Nothing is set aside for these: training leaves out what is also held back."""
    for files in looked.by_group().values():
        parts = sorted({file.part for file in files if file.part is not None}, key=int)
        if len(parts) > 1:
            same = len({file.sha256 for file in files}) == 1
            detail = f"{' and '.join(map(name_of, parts))}; {'the same file' if same else 'nearly the same picture'}"
            yield Item(tuple(file.path for file in files), detail)


def _refused(files: Iterable[Inspected], astray: Iterable[str]) -> dict[Kind, list[Item]]:
    found: dict[Kind, list[Item]] = {kind: [] for kind in (Kind.UNREADABLE, Kind.NO_PICTURE, Kind.EMPTY, Kind.MISSING)}
    for path in astray:
        found[Kind.MISSING].append(Item((path,), "a link that leads out of the data set or to a folder"))
    kinds = {str(Reason.EMPTY): Kind.EMPTY, str(Reason.UNSUPPORTED): Kind.NO_PICTURE, "io-error": Kind.MISSING}
    for file in files:
        if not file.is_picture:
            kind = kinds.get(file.reason, Kind.UNREADABLE)
            # What cannot be read now may well be a good picture.
            found[kind].append(Item((file.path,), file.detail, () if kind is Kind.MISSING else (file.path,)))
    return found


def _tiny(looked: _Looked) -> Iterator[Item]:
    sides = [min(looked.files[index].width, looked.files[index].height) for index in looked.good]
    usual = float(np.median(sides)) if sides else 0.0
    for index, side in zip(looked.good, sides, strict=True):
        if side < _TINY or (side < _SMALL and side * _TIMES < usual):
            file = looked.files[index]
            yield Item((file.path,), f"{file.width}x{file.height} pixels", (file.path,))


def _copies(looked: _Looked) -> Iterator[Item]:
    for same in looked.by_content().values():
        by_class: dict[int, list[str]] = defaultdict(list)
        for file in same:
            by_class[file.target].append(file.path)
        for paths in by_class.values():
            if len(paths) > 1:
                yield Item(tuple(paths), f"{len(paths)} times", tuple(paths[1:]))


def _near_copies(looked: _Looked) -> Iterator[Item]:
    for files in looked.by_group().values():
        by_class: dict[int, dict[str, str]] = defaultdict(dict)
        for file in files:
            by_class[file.target].setdefault(file.sha256, file.path)
        for paths in by_class.values():
            if len(paths) > 1:
                yield Item(tuple(paths.values()), f"{len(paths)} pictures")


def _misnamed(looked: _Looked) -> Iterator[Item]:
    for index in looked.good:
        file = looked.files[index]
        if file.is_misnamed:
            yield Item((file.path,), f"it is {(file.format or 'picture').upper()}")


def _plain(looked: _Looked) -> Iterator[Item]:
    for index in looked.good:
        if looked.thumbnails[index].std() < _PLAIN:
            yield Item((looked.files[index].path,), "one colour all over")


def _summaries(looked: _Looked) -> tuple[ClassSummary, ...]:
    total = Counter(file.target for file in looked.files)
    members: dict[int, list[Inspected]] = defaultdict(list)
    groups: dict[int, set[int]] = defaultdict(set)
    for index, group in zip(looked.good, looked.groups.tolist(), strict=True):
        members[looked.files[index].target].append(looked.files[index])
        groups[looked.files[index].target].add(group)
    return tuple(
        _summary(label, total[target], len(groups[target]), members[target])
        for target, label in enumerate(looked.labels)
    )


def _summary(label: str, total: int, different: int, files: Sequence[Inspected]) -> ClassSummary:
    return ClassSummary(
        label=label,
        files=total,
        usable=len(files),
        different=different,
        parts=_counted(name_of(file.part) for file in files if file.part is not None),
        widths=_range([file.width for file in files]),
        heights=_range([file.height for file in files]),
        formats=_counted(str(file.format) for file in files),
        grey=sum(file.is_grey for file in files),
        alpha=sum(file.has_alpha for file in files),
        rotated=sum(file.orientation != 1 for file in files),
    )


def _counted(words: Iterable[str]) -> Mapping[str, int]:
    return dict(Counter(words).most_common())


def _range(sizes: Sequence[int]) -> tuple[int, int, int]:
    return (min(sizes), int(np.median(sizes)), max(sizes)) if sizes else (0, 0, 0)


def _scarce(summaries: Sequence[ClassSummary]) -> Iterator[Item]:
    for summary in summaries:
        if summary.different < _SCARCE:
            yield Item((), f"{summary.label}: {summary.different} different pictures")


def _imbalance(summaries: Sequence[ClassSummary]) -> Iterator[Item]:
    few, many = (chosen(summaries, key=lambda summary: summary.different) for chosen in (min, max))
    if few.different and many.different >= _UNEVEN * few.different:
        times = many.different / few.different
        yield Item(
            (), f"{many.label} has {many.different} different pictures, {times:.0f} times as many as {few.label}"
        )


def _grey(summaries: Sequence[ClassSummary]) -> Iterator[Item]:
    shares = [(summary.grey / summary.usable, summary.label) for summary in summaries if summary.usable]
    if shares and max(shares)[0] - min(shares)[0] > _GREY:
        (least, coloured), (most, grey) = min(shares), max(shares)
        yield Item((), f"{most:.0%} of {grey} and {least:.0%} of {coloured} are grey")
