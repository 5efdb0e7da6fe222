"""Disk against database: what is filed and is not there, and what is there and is not filed.

Nothing is changed here. A daemon may be at work meanwhile: whatever seems to be wrong is looked at again, in the
database and on the disk, before it is told.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import company_survey
from pigeonholed.database import identity_of
from pigeonholed.errors import Unavailable
from pigeonholed.explanations import explanation_in
from pigeonholed.findings import Finding, Kind
from pigeonholed.images import Placement, Status
from pigeonholed.judging import Judge
from pigeonholed.output import PRIVATE
from pigeonholed.owning import owner_of
from pigeonholed.paths import from_text, to_text
from pigeonholed.placing import sidecar_of
from pigeonholed.snapshot import snapshot
from pigeonholed.steps import HoldState
from pigeonholed.surveying import ASIDE, Survey
from pigeonholed.tables import holds, images, sidecars
from pigeonholed.workfolders import left_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.engine import Connection

    from pigeonholed.settings import InboxSettings, Settings

_BATCH = 200
_PASSING = frozenset(
    {
        *(Kind.MISSING, Kind.MOVED, Kind.TWICE, Kind.CHANGED, Kind.REASON_MISSING, Kind.REASON_FOREIGN),
        *(Kind.SIDECAR_MISSING, Kind.SIDECAR_MOVED),
    }
)
"""What may be true for a moment, while a daemon puts the file back or files it."""
_AWAY = frozenset({Kind.MISSING, Kind.MOVED, Kind.TWICE})
_GOING_BACK = (HoldState.RETURNING.value, HoldState.RETRYING.value)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at, and how closely.

    Attributes:
        inbox: rows of this one, and its output; None for all.
        fast: only whether files are there, and their sizes; contents are read where one is missing, to find it again.
        resting: no process works on these files, so that what is unfinished stays so.
    """

    inbox: str | None = None
    fast: bool = False
    resting: bool = True


class Progress:
    """Told how far it is; this one tells nobody."""

    def begins(self, what: str, total: int | None = None) -> None:
        """Something else is done from now on, so many times if that is known."""

    def advances(self, count: int) -> None:
        """So much more of it is done."""


class Check:
    """One comparison. Owned by one thread.

    Args:
        settings: which database, outputs and inboxes.
        scope: how much of them.
        progress: told of how far it is.

    Attributes:
        rows: how many results were looked at, and
        files: how many files lie in the outputs, when `findings` has ended.
        last_id: the highest id that was known when the rows were read.
        unconfigured: results of inboxes that are not configured, which nobody can look at, by inbox.
    """

    def __init__(self, settings: Settings, scope: Scope, progress: Progress | None = None) -> None:
        self._settings = settings
        self._scope = scope
        self._progress = progress or Progress()
        self._inboxes = [inbox for inbox in settings.inbox if scope.inbox in (None, inbox.name)]
        self._outputs: list[str] = []
        self._survey: Survey
        self.rows = self.files = 0
        self.last_id = 0
        self.unconfigured: dict[str, int] = {}

    def findings(self) -> Iterator[Finding]:
        """Every disagreement, as it is found.

        Raises:
            Unavailable: an output is not there, or not the one that it was; or the database cannot be read.
        """
        with snapshot(self._settings) as connection:
            identity = identity_of(connection.engine)
        here = (str(inbox.output) for inbox in self._inboxes if _has_output(inbox, identity))
        self._outputs = list(dict.fromkeys(here))
        numbers = {name: number for number, name in enumerate(self._outputs)}
        inboxes = {inbox.name: numbers.get(str(inbox.output), ASIDE) for inbox in self._settings.inbox}
        self._survey = Survey(self._outputs, self._progress.advances)
        try:
            self._progress.begins("files")
            with snapshot(self._settings) as connection:
                self._require_outputs(connection, identity)
            self.files = self._survey.walk()
            self._progress.begins("rows")
            with snapshot(self._settings) as connection:
                yield from self._of_database(connection)
                self._survey.read(connection, inboxes)
            self.unconfigured, self.last_id = self._survey.unconfigured, self._survey.last_id
            yield from self._told(self._of_rows())
            yield from self._told(company_survey.findings(self._survey, self._scope.inbox))
            yield from self._of_files()
            yield from self._of_unfinished()
        finally:
            self._survey.close()

    def _require_outputs(self, connection: Connection, identity: str | None) -> None:
        """An output whose mount is away must not make all that is filed in it look as if it were gone."""
        filed = sa.select(images.c.inbox).where(images.c.status == Status.FILED, images.c.destination.is_not(None))
        for output in self._outputs:
            owner = owner_of(os.path.join(output, PRIVATE))
            if owner == identity:
                continue
            if owner is not None:
                raise Unavailable(
                    f"cannot compare the output {to_text(output)}: it belongs to another database; "
                    "choose the configuration whose output it is"
                )
            names = [inbox.name for inbox in self._settings.inbox if str(inbox.output) == output]
            if connection.execute(filed.where(images.c.inbox.in_(names)).limit(1)).first() is not None:
                raise Unavailable(
                    f"cannot compare the output {to_text(output)}: it is not there, or not the folder that it was "
                    "(.pigeonholed/owner is missing); if its mount is away, mount it again"
                )

    def _of_database(self, connection: Connection) -> Iterator[Finding]:
        if connection.dialect.name == "sqlite":
            for (verdict,) in connection.exec_driver_sql("PRAGMA quick_check(10)"):
                if verdict != "ok":
                    file = to_text(str(self._settings.database.file))
                    yield Finding(Kind.DATABASE, file, f"SQLite finds it damaged: {verdict}")

    def _told(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Those that are still so at a second look."""
        batch: list[Finding] = []
        for finding in findings:
            batch.append(finding)
            if len(batch) == _BATCH:
                yield from self._still(batch)
                batch = []
        yield from self._still(batch)

    def _still(self, batch: Sequence[Finding]) -> Iterator[Finding]:
        passing = [finding for finding in batch if finding.kind in _PASSING]
        ids = [finding.image for finding in passing if finding.image is not None]
        places = self._places(ids)
        for finding in batch:
            stands = finding.kind not in _PASSING or (finding.image, finding.path) in places
            if stands and self._is_so(finding):
                yield finding

    def _places(self, ids: Sequence[int]) -> set[tuple[int | None, str]]:
        """Where the rows say now that files are; those that are not filed, or are being put back, are left out."""
        if not ids:
            return set()
        going = sa.exists().where(holds.c.image_id == images.c.id, holds.c.state.in_(_GOING_BACK))
        query = sa.select(images.c.id, images.c.destination).where(
            images.c.id.in_(ids), images.c.status == Status.FILED, ~going
        )
        with snapshot(self._settings) as connection:
            filed = {(row.id, row.destination) for row in connection.execute(query)}
            return filed | company_survey.still(connection, ids)

    def _is_so(self, finding: Finding) -> bool:
        path = os.path.join(finding.folder, from_text(finding.path))
        if finding.kind in {Kind.MISSING, Kind.SIDECAR_MISSING}:
            return not os.path.lexists(path)
        if finding.kind in {Kind.MOVED, Kind.SIDECAR_MOVED}:
            return os.path.lexists(os.path.join(finding.folder, from_text(finding.facts["found"])))
        if finding.kind is Kind.REASON_MISSING:
            return not os.path.lexists(sidecar_of(path))
        return True

    def _of_rows(self) -> Iterator[Finding]:
        self._progress.begins("results", self._survey.count_filed(self._scope.inbox))
        for number, folder, why in self._survey.unreadable:
            yield Finding(Kind.UNREADABLE, folder or ".", f"cannot be looked into: {why}", self._outputs[number])
        judge = Judge(self._survey, fast=self._scope.fast)
        for (number, _place), group in groupby(
            self._survey.filed(self._scope.inbox), key=lambda row: (row["output"], row["destination"])
        ):
            rows = list(group)
            for finding in judge.place(self._outputs[number], rows):
                if finding.kind in _AWAY and finding.image is not None:
                    self._survey.note_elsewhere(finding.image, finding.facts.get("found"))
                yield finding
            self.rows += len(rows)
            self._progress.advances(len(rows))

    def _of_files(self) -> Iterator[Finding]:
        self._progress.begins("other files")
        for entry in self._survey.odd():
            folder = self._outputs[entry["output"]]
            if os.path.lexists(os.path.join(folder, from_text(entry["path"]))):
                what = "is no regular file, and no row explains it"
                yield Finding(Kind.UNEXPLAINED, entry["path"], what, folder, remedy="move it away")
        suspects: list[Finding] = []
        for entry in self._survey.orphans():
            found = self._of_orphan(self._outputs[entry["output"]], entry)
            suspects += [found] if found is not None else []
            if len(suspects) == _BATCH:
                yield from self._unexplained(suspects)
                suspects = []
        yield from self._unexplained(suspects)

    def _of_orphan(self, folder: str, entry: dict[str, Any]) -> Finding | None:
        path: str = entry["path"]
        if path.endswith(sidecar_of("")):
            explained = path.removesuffix(sidecar_of(""))
            if self._survey.is_filed(entry["output"], explained, Placement.REJECTED.value):
                return None
            if os.path.lexists(os.path.join(folder, from_text(explained))):
                return None  # it goes with a file that is told of itself
            if _explanation_in(os.path.join(folder, from_text(path))) is not None:
                return Finding(Kind.REASON_STRAY, path, "explains a file that is not filed there", folder)
        return Finding(Kind.UNEXPLAINED, path, "is of no row", folder)

    def _unexplained(self, suspects: Sequence[Finding]) -> Iterator[Finding]:
        """Those that are still there, and that no row of a moment ago speaks of."""
        there = [found for found in suspects if os.path.lexists(os.path.join(found.folder, from_text(found.path)))]
        known = set() if self._scope.resting else self._recent([found.path for found in there])
        yield from (found for found in there if not {found.path, found.path.removesuffix(sidecar_of(""))} & known)

    def _recent(self, paths: Sequence[str]) -> set[str]:
        """Which of these have come into the database since the rows were read: their names were given away anew."""
        query = sa.select(images.c.destination).where(
            images.c.id > self._survey.last_id, images.c.destination.in_([*paths, *_without_suffix(paths)])
        )
        with snapshot(self._settings) as connection:
            known = set(connection.scalars(query))
            later = sa.select(sidecars.c.destination).where(
                sidecars.c.image_id > self._survey.last_id, sidecars.c.destination.in_(paths)
            )
            return known | set(connection.scalars(later))

    def _of_unfinished(self) -> Iterator[Finding]:
        for row in self._survey.lost(self._scope.inbox):
            what = f"is lost: {row['detail'] or 'nobody knows why'}"
            yield Finding(Kind.LOST, row["path"], what, inbox=row["inbox"], image=row["id"])
        if self._scope.resting:
            for row in self._survey.flying(self._scope.inbox):
                what = f"is not finished: {row['status']}"
                yield Finding(Kind.IN_FLIGHT, row["path"], what, inbox=row["inbox"], image=row["id"])
            yield from self._going_back()
        inboxes = [str(inbox.path) for inbox in self._inboxes]
        yield from left_over(self._outputs, inboxes, self._survey.is_flying, resting=self._scope.resting)

    def _going_back(self) -> Iterator[Finding]:
        """Files that a process was putting back when it ended: nobody judges where they are but the next one."""
        query = sa.select(holds.c.image_id, holds.c.inbox, holds.c.source_path).where(holds.c.state.in_(_GOING_BACK))
        if self._scope.inbox is not None:
            query = query.where(holds.c.inbox == self._scope.inbox)
        with snapshot(self._settings) as connection:
            for number, inbox, path in connection.execute(query.order_by(holds.c.image_id)):
                yield Finding(Kind.IN_FLIGHT, path, "is half way back to its inbox", inbox=inbox, image=number)


def _has_output(inbox: InboxSettings, identity: str | None) -> bool:
    """Whether files of an inbox are in an output: where they stay, only those of another time, which made it ours."""
    if inbox.output is None:
        return False
    return inbox.action != "none" or owner_of(os.path.join(inbox.output, PRIVATE)) == identity


def _explanation_in(path: str) -> dict[str, Any] | None:
    try:
        return explanation_in(path)
    except OSError:
        return None


def _without_suffix(paths: Iterable[str]) -> list[str]:
    return [path.removesuffix(sidecar_of("")) for path in paths if path.endswith(sidecar_of(""))]
