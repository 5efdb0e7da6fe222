"""Where disk and database disagree: one value a finding, and what can be done about each kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pigeonholed.paths import to_text


class Kind(StrEnum):
    """What is wrong; the value is the word that `fsck` prints."""

    DATABASE = "database"  # SQLite finds its file damaged
    ROW = "row"  # a row says what cannot be
    MISSING = "missing"  # a filed file is not where it was filed, nor below the same output
    MOVED = "moved"  # a filed file is elsewhere below its output
    CHANGED = "changed"  # a filed file has other bytes
    TWICE = "twice"  # two rows claim one file
    UNEXPLAINED = "unexplained"  # a file that no row explains
    REASON_MISSING = "reason-missing"  # a rejected file without its .reason.json
    REASON_FOREIGN = "reason-foreign"  # a rejected file whose .reason.json is not ours
    REASON_STRAY = "reason-stray"  # a .reason.json without its file
    IN_FLIGHT = "in-flight"  # a row that is not finished, and no process is at work
    LEFT_OVER = "left-over"  # something in a work or hold folder that no row explains
    SIDECAR_MISSING = "sidecar-missing"  # a sidecar is not where it was filed, nor beside its picture
    SIDECAR_MOVED = "sidecar-moved"  # it is beside its picture, under another name or in another folder
    LOST = "lost"  # a row that says so
    UNREADABLE = "unreadable"  # a folder or a file that cannot be looked at


REMEDIES = {
    Kind.DATABASE: "stop the service and put a backup in its place, then 'pigeonholed fsck --repair'",
    Kind.ROW: "no command mends it; look at the row in the database",
    Kind.MISSING: "put the file back, or --repair: its row becomes 'vanished'",
    Kind.MOVED: "--repair: its row follows it",
    Kind.CHANGED: "put the right file back, or move this one away and --repair",
    Kind.TWICE: "--repair: the row whose file it is keeps it, the other one becomes 'vanished'",
    Kind.UNEXPLAINED: "--repair makes a row for a file in the folder of a class or a reason; or move it away",
    Kind.REASON_MISSING: "--repair writes it anew",
    Kind.REASON_FOREIGN: "move it away, then --repair",
    Kind.REASON_STRAY: "remove it, or put its file back",
    Kind.IN_FLIGHT: "'pigeonholed run' takes it up where it was left",
    Kind.LEFT_OVER: "look at it; if it is a picture, move it into its inbox by hand",
    Kind.SIDECAR_MISSING: "put it back, or --repair: its picture's row forgets it",
    Kind.SIDECAR_MOVED: "--repair: its picture's row follows it",
    Kind.LOST: "look for the file in your backups, and drop it again",
    Kind.UNREADABLE: "let this user read it, and look again",
}

MENDABLE = frozenset(
    {
        *(Kind.MISSING, Kind.MOVED, Kind.TWICE, Kind.UNEXPLAINED, Kind.REASON_MISSING),
        *(Kind.SIDECAR_MISSING, Kind.SIDECAR_MOVED),
    }
)
"""The kinds that `--repair` can do something about."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement.

    Attributes:
        kind: what is wrong.
        path: of what, as it stands in the database; relative to `folder`.
        what: the end of a sentence that begins with the path.
        folder: the output or inbox that it is in, as `os.fsdecode` gives it; empty where there is none.
        inbox: that the row is of.
        image: id of the row.
        remedy: what a person can do.
        facts: what mending it needs to know besides.
    """

    kind: Kind
    path: str
    what: str
    folder: str = ""
    inbox: str | None = None
    image: int | None = None
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind.value,
            "path": self.path,
            "folder": to_text(self.folder),
            "inbox": self.inbox,
            "image": self.image,
            "what": self.what,
            "found": self.facts.get("found"),
            "remedy": self.remedy or REMEDIES[self.kind],
        }

    def as_arguments(self) -> dict[str, Any]:
        """For a request to mend it."""
        return {"kind": self.kind.value, "folder": self.folder, "path": self.path, "image": self.image, **self.facts}
