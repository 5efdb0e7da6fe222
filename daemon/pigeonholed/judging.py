"""Whether the file in the place of a result is the very one, and where it is if it is not."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from pigeonholed.contents import sha256_of
from pigeonholed.explanations import explains
from pigeonholed.findings import Finding, Kind
from pigeonholed.images import Placement
from pigeonholed.output import PRIVATE
from pigeonholed.paths import from_text
from pigeonholed.placing import sidecar_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pigeonholed.surveying import Survey

_REJECTED = "_rejected/"


class Judge:
    """Looks at one place after another. Owned by one thread.

    Args:
        survey: knows which files no row explains.
        fast: contents are not read, but of such files where one of that size is missing.
    """

    def __init__(self, survey: Survey, *, fast: bool) -> None:
        self._survey = survey
        self._fast = fast

    def place(self, folder: str, rows: Sequence[dict[str, Any]]) -> Iterator[Finding]:
        """One place, and the rows that claim it, the newest first."""
        path = rows[0]["destination"]
        if not is_clean(from_text(path)):
            yield from (_finding(Kind.ROW, row, folder, "is no place in an output") for row in rows)
            return
        faults = [self._fault(folder, row) for row in rows]
        owner = next((row for row, fault in zip(rows, faults, strict=True) if fault is None), None)
        for row, fault in zip(rows, faults, strict=True):
            if row is owner:
                yield from self._of_reason(folder, row)
            elif fault is not None and fault.kind is not Kind.CHANGED:
                yield self._elsewhere(fault, row) if fault.kind is Kind.MISSING else fault
            elif fault is not None and owner is None and row is rows[0]:
                yield self._elsewhere(fault, row)  # somebody may have put another in its place
            else:
                kept = (owner or rows[0])["id"]
                what = f"is the file of row {kept}, and row {row['id']} claims it, too"
                yield self._elsewhere(_finding(Kind.TWICE, row, folder, what, facts={"other": kept}), row)

    def _fault(self, folder: str, row: dict[str, Any]) -> Finding | None:
        """What is wrong with the file in the place of a row; None where it is the very one."""
        path = os.path.join(folder, from_text(row["destination"]))
        try:
            status = os.lstat(path)  # at the moment, not when the folders were walked
        except (FileNotFoundError, NotADirectoryError):
            return _finding(Kind.MISSING, row, folder, "is not where it was filed")
        except OSError as error:
            return _finding(Kind.UNREADABLE, row, folder, f"cannot be looked at: {error.strerror}")
        what = None
        if not stat.S_ISREG(status.st_mode):
            what = "is no regular file any more"
        elif status.st_size != row["size"]:
            what = f"has {status.st_size} bytes, and had {row['size']} when it was filed"
        if what is not None:
            return _finding(Kind.CHANGED, row, folder, what)
        return None if self._fast or row["sha256"] is None else self._fault_of_bytes(path, folder, row)

    def _fault_of_bytes(self, path: str, folder: str, row: dict[str, Any]) -> Finding | None:
        try:
            if sha256_of(path) == row["sha256"]:
                return None
        except FileNotFoundError:
            return _finding(Kind.MISSING, row, folder, "is not where it was filed")
        except OSError as error:
            return _finding(Kind.UNREADABLE, row, folder, f"cannot be read: {error.strerror}")
        return _finding(Kind.CHANGED, row, folder, "has other bytes than when it was filed")

    def _elsewhere(self, fault: Finding, row: dict[str, Any]) -> Finding:
        """The same fault, or that the file has been moved, where one with its bytes lies about."""
        if row["sha256"] is None:
            return fault
        root, name = fault.folder, row["destination"].rpartition("/")[2]

        def hash_of(path: str) -> str | None:
            try:
                return sha256_of(os.path.join(root, from_text(path)))
            except OSError:
                return None

        found = self._survey.claim_orphan(row["output"], row["size"], row["sha256"], name, hash_of)
        if found is None:
            return fault
        return _finding(Kind.MOVED, row, root, f"is at {found} now", facts={**fault.facts, "found": found})

    def _of_reason(self, folder: str, row: dict[str, Any]) -> Iterator[Finding]:
        """The explanation beside a rejected file; one that a person has moved to another folder needs none."""
        if row["outcome"] != Placement.REJECTED or not row["destination"].startswith(_REJECTED):
            return
        sidecar = sidecar_of(os.path.join(folder, from_text(row["destination"])))
        if not os.path.lexists(sidecar):
            yield _finding(Kind.REASON_MISSING, row, folder, "has no .reason.json beside it")
            return
        try:
            if not explains(sidecar, row["arrival"]):
                yield _finding(Kind.REASON_FOREIGN, row, folder, "has a .reason.json beside it that is of another")
        except OSError as error:
            what = f"has a .reason.json beside it that cannot be read: {error.strerror}"
            yield _finding(Kind.UNREADABLE, row, folder, what)


def _finding(kind: Kind, row: dict[str, Any], folder: str, what: str, facts: dict[str, Any] | None = None) -> Finding:
    return Finding(kind, row["destination"], what, folder, row["inbox"], row["id"], facts=facts or {})


def is_clean(path: str) -> bool:
    """Whether a path leads to something below an output that is not in its work folder."""
    parts = path.split("/")
    return parts[0] != PRIVATE and not {"", ".", ".."} & set(parts)
