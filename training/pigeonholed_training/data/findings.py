"""What can be said of a data set before it is trained on: frozen values, made by `checking`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pigeonholed_training.data.splitting import Part

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pigeonholed_training.data.inspecting import Inspected
    from pigeonholed_training.data.sources import Kind as Source


class Kind(StrEnum):
    """What was found, the gravest first."""

    FEW = "few"
    """A class has too few pictures to train on at all."""
    CONTRADICTION = "contradiction"
    """The same bytes in two classes."""
    NEAR_CONTRADICTION = "near-contradiction"
    """Nearly the same picture in two classes."""
    LEAK = "leak"
    """The same or nearly the same picture in two parts of a given split."""
    UNREADABLE = "unreadable"
    """A picture that cannot be decoded."""
    NO_PICTURE = "no-picture"
    """Content of no format that is decoded, whatever the name says."""
    EMPTY = "empty"
    """No bytes."""
    MISSING = "missing"
    """What could not be read at all: gone, not allowed, no regular file, a link that leads astray."""
    TINY = "tiny"
    """Too small to show anything, as icons and counting pixels are."""
    COPIES = "copies"
    """The same bytes again in a class."""
    NEAR_COPIES = "near-copies"
    """Nearly the same picture again in a class."""
    MISNAMED = "misnamed"
    """A picture of another format than its name says."""
    PLAIN = "plain"
    """A picture of one colour all over."""
    SCARCE = "scarce"
    """A class with so few pictures that the model will be weak in it."""
    IMBALANCE = "imbalance"
    """A class has many times the pictures of another."""
    GREY = "grey"
    """The share of grey pictures tells the classes apart."""


@dataclass(frozen=True, slots=True)
class Item:
    """One case of a finding.

    Attributes:
        paths: of the files it is about; empty where it is about a class.
        detail: what is the matter, for people.
        aside: those of `paths` that are better set aside.
    """

    paths: tuple[str, ...]
    detail: str
    aside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """All cases of one kind."""

    kind: Kind
    items: tuple[Item, ...]

    @property
    def aside(self) -> tuple[str, ...]:
        """Paths that are better set aside, each once."""
        return tuple(dict.fromkeys(path for item in self.items for path in item.aside))


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """One class in figures.

    Attributes:
        label: its name.
        files: how many there are.
        usable: how many can be decoded.
        different: how many of these are no copy and no near-duplicate of another.
        parts: usable pictures in each part that the source gives, by the part's name.
        widths: least, middle and most, in pixels; zeros where nothing is usable.
        heights: the same.
        formats: usable pictures of each format.
        grey: how many have no colour.
        alpha: how many can be see-through.
        rotated: how many carry an EXIF orientation; they are turned upright for training.
    """

    label: str
    files: int
    usable: int
    different: int
    parts: Mapping[str, int]
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    formats: Mapping[str, int]
    grey: int
    alpha: int
    rotated: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True)
class Report:
    """What was found in a data set.

    Attributes:
        data: the folder or list, as it was given.
        root: what paths are relative to.
        source: how classes and split are given.
        files: every file, in order of the source.
        classes: in order of the labels.
        findings: the gravest first.
    """

    data: Path
    root: Path
    source: Source
    files: tuple[Inspected, ...]
    classes: tuple[ClassSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def is_trainable(self) -> bool:
        """Whether every class has enough pictures."""
        return not any(finding.kind is Kind.FEW for finding in self.findings)

    @property
    def aside(self) -> dict[str, Kind]:
        """What is better set aside, and its gravest fault."""
        found: dict[str, Kind] = {}
        for finding in self.findings:
            for path in finding.aside:
                found.setdefault(path, finding.kind)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything but the files, for JSON."""
        return {
            "data": str(self.data),
            "source": self.source,
            "trainable": self.is_trainable,
            "files": len(self.files),
            "usable": sum(summary.usable for summary in self.classes),
            "classes": [summary.as_dict() for summary in self.classes],
            "findings": [
                {
                    "kind": str(finding.kind),
                    "count": len(finding.items),
                    "items": [
                        {"paths": list(item.paths), "detail": item.detail, "aside": list(item.aside)}
                        for item in finding.items
                    ],
                }
                for finding in self.findings
            ],
            "aside": [{"path": path, "kind": str(kind)} for path, kind in self.aside.items()],
        }


def name_of(part: Part | None) -> str:
    """What a part is called in files and folders."""
    return "" if part is None or part is Part.NONE else part.name.lower()
