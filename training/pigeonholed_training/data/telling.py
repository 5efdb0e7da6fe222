"""What was found in a data set, in words for people who never trained anything."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from pigeonholed_training.data.findings import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pigeonholed_training.data.findings import ClassSummary, Finding, Item, Report

_SHOWN: Final = 3  # cases of a finding
_SHOWN_PATHS: Final = 4  # files of a case
_SHOWN_CLASSES: Final = 40

_WORDS: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.FEW: ("Classes with too few pictures", "Add pictures, or take that class away."),
    Kind.CONTRADICTION: (
        "Files that are in two classes at once",
        "Only one can be right. Set aside are all of them; put back the right ones.",
    ),
    Kind.NEAR_CONTRADICTION: (
        "Pictures that are in two classes, or look very much alike",
        "Look at them. Set aside are those that are the very same picture, saved anew.",
    ),
    Kind.LEAK: (
        "Pictures that are in two parts of the split",
        "A test with pictures that were learned says nothing. Training will not learn from these.",
    ),
    Kind.UNREADABLE: ("Damaged pictures", "Training passes over them. Fetch them again if you can."),
    Kind.NO_PICTURE: ("Files that are no pictures, whatever they are called", "Training passes over them."),
    Kind.EMPTY: ("Empty files", "Training passes over them. Fetch them again if you can."),
    Kind.MISSING: ("Files that could not be read", "Training passes over them. See whether they are there."),
    Kind.TINY: ("Tiny pictures", "They show too little to learn from."),
    Kind.COPIES: (
        "Pictures that are in their class more than once",
        "Training counts each once. Set aside are all but the first.",
    ),
    Kind.NEAR_COPIES: (
        "Groups of nearly the same pictures in a class",
        "They may stay: training never learns from one of a group and is tested with another.",
    ),
    Kind.MISNAMED: (
        "Pictures of another kind than their name says",
        "They may stay: training goes by the content. Other programs may stumble over them.",
    ),
    Kind.PLAIN: ("Pictures of one colour all over", "See whether they are meant to be there."),
    Kind.SCARCE: ("Classes with few pictures", "The model will be weak in them; some hundreds would be better."),
    Kind.IMBALANCE: (
        "Classes of very different size",
        "Add pictures to the small one, or train with --set class_weights=balanced.",
    ),
    Kind.GREY: (
        "Classes that lack of colour gives away",
        "The model may learn just that. Add grey pictures to the others, or coloured ones to this.",
    ),
}


def tell(report: Report) -> Iterator[str]:
    """Lines of plain text: a verdict, the classes in figures, and each finding with what to do about it."""
    yield f"{report.data}: {_verdict(report)}"
    yield ""
    yield from _table(report.classes)
    yield from _notes(report.classes)
    for finding in report.findings:
        yield ""
        yield from _told(finding)


def how_to_set_aside(report: Report) -> str:
    """The command that would do it."""
    what = shlex.quote(printable(str(report.data)))
    return (
        f"To set {len(report.aside)} file(s) aside, without deleting any:\n"
        f"  pigeonholed-train dataset check {what} --move-bad DIR"
    )


def printable(text: str) -> str:
    """The text with everything escaped that would upset a terminal: control characters, and bytes that are no text."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _verdict(report: Report) -> str:
    if not report.is_trainable:
        return "NOT READY for training, see the first finding."
    if report.aside:
        return f"ready for training, better once {len(report.aside)} of {len(report.files)} files are set aside."
    if report.findings:
        return "ready for training; what is worth knowing stands below."
    return "ready for training; nothing wrong was found."


def _table(classes: Sequence[ClassSummary]) -> Iterator[str]:
    parts = [
        part for part in ("train", "validation", "calibration", "test") if any(part in one.parts for one in classes)
    ]
    head = ["class", "files", "usable", "different", *parts, "width, least to most", "height, least to most"]
    rows = [
        [
            printable(one.label),
            *map(str, (one.files, one.usable, one.different, *(one.parts.get(part, 0) for part in parts))),
            *(f"{low} .. {middle} .. {high}" for low, middle, high in (one.widths, one.heights)),
        ]
        for one in classes[:_SHOWN_CLASSES]
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield f"  {row[0].ljust(widths[0])}  {'  '.join(cells)}".rstrip()
    if len(classes) > _SHOWN_CLASSES:
        yield f"  and {len(classes) - _SHOWN_CLASSES} more classes"


def _notes(classes: Sequence[ClassSummary]) -> Iterator[str]:
    usable = sum(one.usable for one in classes)
    formats: dict[str, int] = {}
    for one in classes:
        for name, count in one.formats.items():
            formats[name.upper()] = formats.get(name.upper(), 0) + count
    if usable:
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(formats.items(), key=lambda pair: -pair[1]))
        carried = {
            "grey": sum(one.grey for one in classes),
            "with transparency": sum(one.alpha for one in classes),
            "turned upright by their EXIF": sum(one.rotated for one in classes),
        }
        others = "".join(f"; {count} {what}" for what, count in carried.items() if count)
        yield f"  {usable} pictures: {kinds}{others}"


def _told(finding: Finding) -> Iterator[str]:
    what, advice = _WORDS[finding.kind]
    mark = "!" if finding.aside or finding.kind in {Kind.FEW, Kind.LEAK, Kind.NEAR_CONTRADICTION} else "-"
    yield f"{mark} {what}: {len(finding.items)}"
    yield f"  {advice}"
    for item in finding.items[:_SHOWN]:
        yield f"    {_shown(item)}"
    if len(finding.items) > _SHOWN:
        yield f"    and {len(finding.items) - _SHOWN} more (all of them with --json)"


def _shown(item: Item) -> str:
    if not item.paths:
        return printable(item.detail)
    return f"{_joined(item.paths)}  ({printable(item.detail)})"


def _joined(paths: Iterable[str]) -> str:
    shown = [printable(path) for path in paths]
    more = [f"{len(shown) - _SHOWN_PATHS} more"] if len(shown) > _SHOWN_PATHS else []
    return " = ".join(shown[:_SHOWN_PATHS] + more)
