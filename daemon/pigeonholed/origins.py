"""What a place in an output says of the file in it, where no row does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pigeonholed.ignoring import NameFilter
from pigeonholed.images import Placement, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

_OURS = frozenset({"_unsure", "_rejected", "_duplicates"})


class Unclear(Exception):
    """The place does not say enough; the message is the end of a sentence about the file."""


@dataclass(frozen=True, slots=True)
class Source:
    """An inbox that files into an output.

    Attributes:
        labels: every label of its model.
        leads_with_label: its template begins with the folder of the label.
    """

    labels: frozenset[str]
    leads_with_label: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """What became of a file, and where it seems to have come from: `path` is relative to `inbox`."""

    inbox: str
    path: str
    placement: Placement
    label: str | None = None
    reason: Reason | None = None


def origin_of(path: str, sources: Mapping[str, Source], inbox: str | None = None) -> Origin:
    """Read a place.

    Args:
        path: relative to the output, as `os.fsdecode` gives it.
        sources: by name, the inboxes that file into this output.
        inbox: which of them it was, if something else says so.

    Raises:
        Unclear: it is in no folder of a class or a reason, or several inboxes could have filed it.
    """
    parts = path.split("/")
    if NameFilter().ignores(parts[-1]):
        raise Unclear("has a name of a hidden, half-written or system file")
    if len(parts) < 2:
        raise Unclear("is in no folder of a class")
    if parts[0] == "_rejected":
        if parts[1] not in set(Reason) or len(parts) < 3:
            raise Unclear("is in no folder of a reason")
        name = _only(sources, inbox)
        return Origin(name, "/".join(parts[2:]), Placement.REJECTED, reason=Reason(parts[1]))
    if parts[0] == "_duplicates":
        return Origin(_only(sources, inbox), "/".join(parts[1:]), Placement.DUPLICATE)
    placement = Placement.UNSURE if parts[0] == "_unsure" else Placement.SORTED
    below = parts[1:] if placement is Placement.UNSURE else parts
    fitting = {
        name: label
        for name, source in sources.items()
        if inbox in (None, name) and (label := _label(below, source)) is not None
    }
    if not fitting:
        raise Unclear("is in no folder of a class")
    name = _only(fitting, None)
    kept = below[1:] if sources[name].leads_with_label else below
    return Origin(name, "/".join(kept), placement, label=fitting[name])


def _label(parts: list[str], source: Source) -> str | None:
    """The class whose folder it is; None where none is, or more than one."""
    folders = parts[:-1]
    found = {folder for folder in (folders[:1] if source.leads_with_label else folders) if folder in source.labels}
    return found.pop() if len(found) == 1 else None


def _only(names: Mapping[str, object], wanted: str | None) -> str:
    if wanted in names and wanted is not None:
        return wanted
    if len(names) != 1:
        raise Unclear("may be of several inboxes")
    return next(iter(names))
