"""The record of what arrived, what is to become of it, and what has become of it.

Each method is one step of the delivery protocol and returns when the step is durable. All steps are idempotent, so
that one whose acknowledgement was lost can be repeated.
"""

from __future__ import annotations

import errno
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import entry_rows, tables
from pigeonholed.database import DatabaseUnavailable
from pigeonholed.entries import Copied, Filed, Hold, InFlight, Plan
from pigeonholed.images import IN_FLIGHT, STAYS, Arrival, Status
from pigeonholed.paths import from_text, to_text
from pigeonholed.reading import read, read_companions, read_filed
from pigeonholed.steps import HoldState, Steps
from pigeonholed.writer import Change, Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

    from pigeonholed.entries import Copy
    from pigeonholed.results import Selection


class Ledger:
    """The rows of `images` and `predictions`, and what belongs to them: companions, what was copied, what is put back.

    Args:
        engine: a database whose schema is the newest.
        writer: started, on the same engine.

    Any thread may call any method; the writer's thread makes the changes.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._steps = Steps(engine.dialect)
        last = sa.select(sa.func.max(tables.images.c.id)).scalar_subquery()
        ((identity, last_id),) = read(self._engine, sa.select(tables.identity.c.id, last))
        self.identity = str(identity)
        self._last_id = int(last_id or 0)
        self._lock_of_ids = threading.Lock()
        self._remembering = {row.name for row in read(self._engine, _remembering())}

    @property
    def reachable(self) -> bool:
        """Whether the database answered the last time it was written to."""
        return self._writer.reachable

    def take_ids(self, count: int) -> range:
        """The next `count` ids. One process writes, so no id is taken twice."""
        with self._lock_of_ids:
            first = self._last_id + 1
            self._last_id += count
        return range(first, first + count)

    def claim(self, arrivals: Sequence[Arrival]) -> None:
        """Record arrivals before their files are touched.

        A row that only says what one of them is (its inbox had `action = "none"`) becomes *returned*: it gets another.
        """
        now = datetime.now(UTC)
        again = [
            entry_rows.of_version(arrival.file)
            for arrival in arrivals
            if arrival.file.inbox in self._remembering and not arrival.stays
        ]
        companions = [companion for arrival in arrivals for companion in arrival.companions]
        steps = self._steps
        self._writer.write(
            [
                Change(steps.claim, [entry_rows.of_claim(arrival, now) for arrival in arrivals]),
                Change(steps.companion, [entry_rows.of_companion(companion) for companion in companions]),
                Change(steps.supersede, again),
                Change(steps.superseded_content, again),
                Change(steps.superseded, again),
            ]
        )

    def note(self, plans: Sequence[Plan]) -> None:
        """Record results of files that stay in their inboxes, and which these are: with it they are filed."""
        now = datetime.now(UTC)
        filed = {"b_status": Status.FILED.value, "b_filed_at": now}
        self._writer.write(
            [
                Change(self._steps.note, [entry_rows.of_plan(plan, now) | filed for plan in plans]),
                *self._said(plans),
                Change(self._steps.remember, [entry_rows.of_looked_at(plan) for plan in plans]),
            ]
        )

    def ingest(self, copies: Sequence[Copy]) -> None:
        """Record that private copies are durable: their originals may go."""
        rows = [entry_rows.of_ingest(copy) for copy in copies]
        pictures, companions = ([row for row in rows if bool(row["b_part"]) is is_part] for is_part in (False, True))
        kept = [
            entry_rows.of_original(copy.arrival, copy.fingerprint, copy.original)
            for copy in copies
            if copy.original is not None and copy.fingerprint.sha256 is not None and not copy.arrival.part
        ]
        self._writer.write(
            [
                Change(self._steps.ingest, pictures),
                Change(self._steps.companion_copied, companions),
                Change(self._steps.remember, kept),
            ]
        )

    def copied(self, inbox: str, paths: Sequence[str], *, looked_at: bool) -> dict[str, Copied]:
        """What is remembered of files that were copied and stayed, by path; or also of those only `looked_at`.

        Raises:
            TimeoutError: the database is away.
        """
        found: dict[str, Copied] = {}
        columns = tables.copied.c
        try:
            for start in range(0, len(paths), tables.MANY):
                texts = [to_text(path) for path in paths[start : start + tables.MANY]]
                query = sa.select(tables.copied).where(columns.inbox == inbox, columns.source_path.in_(texts))
                query = query if looked_at else query.where(~_is_looked_at())
                found |= {from_text(row.source_path): entry_rows.to_copied(row) for row in read(self._engine, query)}
        except DatabaseUnavailable as away:
            raise TimeoutError(errno.ETIMEDOUT, str(away)) from away
        return found

    def remember(self, inbox: str, copied: Sequence[tuple[str, Copied]]) -> None:
        """Record that files that are known look otherwise now, though their contents are the same."""
        self._writer.write(
            [Change(self._steps.remember, [entry_rows.of_copied(inbox, path, file) for path, file in copied])]
        )

    def plan(self, plans: Sequence[Plan], filed: Sequence[Arrival] = ()) -> None:
        """Record where files will go, and that the ones of an earlier plan are there."""
        now = datetime.now(UTC)
        self._writer.write(
            [
                *self._filed(filed, now),
                Change(self._steps.plan, [entry_rows.of_plan(plan, now) for plan in plans]),
                *self._said(plans),
                Change(
                    self._steps.companion_planned, [row for plan in plans for row in entry_rows.of_places_beside(plan)]
                ),
            ]
        )

    def confirm(self, filed: Sequence[Arrival]) -> None:
        """Record that files are at their planned destinations, durably."""
        self._writer.write(self._filed(filed, datetime.now(UTC)))

    def begin_again(self, arrivals: Sequence[Arrival]) -> None:
        """Count another attempt for arrivals that an earlier process left unfinished."""
        self._writer.write([Change(self._steps.attempt, [{"b_id": arrival.id} for arrival in arrivals])])

    def record_deaths(self, arrival: Arrival) -> None:
        """Record how many processes have died of decoding an arrival alone."""
        self._writer.write([Change(self._steps.deaths, [{"b_id": arrival.id, "b_deaths": arrival.deaths}])])

    def poisons(self) -> set[str]:
        """The hashes of all pictures that were ever judged to be poison, also of those that were put back since."""
        query = sa.select(tables.images.c.sha256).where(tables.IS_POISON)
        return {sha256 for (sha256,) in read(self._engine, query) if sha256 is not None}

    def close(self, arrivals: Sequence[Arrival], status: Status, detail: str) -> None:
        """End arrivals that leave no result: `vanished`, or `lost`."""
        rows = [{"b_id": arrival.id, "b_status": status.value, "b_detail": detail} for arrival in arrivals]
        ids = [{"b_id": arrival.id} for arrival in arrivals]
        steps = self._steps
        self._writer.write([Change(steps.close, rows), Change(steps.forget, ids), Change(steps.discontent, ids)])

    def in_flight(self, seen_s: float) -> list[InFlight]:
        """What earlier processes left unfinished, oldest first."""
        columns = tables.images.c
        unfinished = columns.status.in_([status.value for status in IN_FLIGHT])
        rows = read(self._engine, sa.select(tables.images).where(unfinished).order_by(columns.id))
        companions = read_companions(self._engine, [row.id for row in rows])
        return [entry_rows.to_in_flight(row, seen_s, companions.get(row.id, ())) for row in rows]

    def arrivals(self, ids: Sequence[int]) -> list[tuple[Arrival, Status]]:
        """Arrivals by their ids, and how far they have come; those that nobody knows are left out."""
        found: list[tuple[Arrival, Status]] = []
        companions = read_companions(self._engine, ids)
        for start in range(0, len(ids), tables.MANY):
            query = sa.select(tables.images).where(tables.images.c.id.in_(ids[start : start + tables.MANY]))
            found += [
                (entry_rows.to_arrival(row, 0.0, companions.get(row.id, ())), Status(row.status))
                for row in read(self._engine, query)
            ]
        return found

    def filed(
        self, selection: Selection | None = None, *, before: int | None = None, most: int | None = None
    ) -> list[Filed]:
        """Results, the newest first.

        Args:
            selection: which; None for all.
            before: only those with a lower id.
            most: so many at most.
        """
        columns = tables.images.c
        query = (
            sa.select(tables.images)
            .where(columns.status == Status.FILED.value)
            .where(*(selection.conditions() if selection is not None else ()))
            .order_by(columns.id.desc())
        )
        if before is not None:
            query = query.where(columns.id < before)
        return read_filed(self._engine, query.limit(most))

    @property
    def last_id(self) -> int:
        """The highest id that was given to a row."""
        return self._last_id

    def begin_return(self, files: Sequence[Filed], *, hold: bool) -> None:
        """Record that files are about to be put back."""
        state = HoldState.RETURNING if hold else HoldState.RETRYING
        rows = [entry_rows.of_return(file, state) for file in files]
        self._writer.write([Change(self._steps.hold, rows)])

    def end_return(self, files: Sequence[Filed]) -> None:
        """Record that files are back, durably. Originals that stayed are new from now on, unless they are held."""
        rows = [{"b_id": file.id} for file in files]
        steps = self._steps
        self._writer.write(
            [
                Change(statement, rows)
                for statement in (steps.back, steps.held, steps.retried, steps.forget, steps.discontent)
            ]
        )

    def cancel_return(self, files: Sequence[Filed]) -> None:
        """Record that files stay where they are filed."""
        self._writer.write([Change(self._steps.unheld, [{"b_id": file.id} for file in files])])

    def release(self) -> None:
        """Forget every hold."""
        self._writer.write([Change(self._steps.release, [{"b_state": HoldState.HELD.value}])])

    def returning(self) -> list[Filed]:
        """Files that an earlier process was putting back."""
        columns = tables.holds.c
        query = (
            sa.select(tables.images)
            .join(tables.holds, columns.image_id == tables.images.c.id)
            .where(columns.state.in_([HoldState.RETURNING.value, HoldState.RETRYING.value]))
        )
        return read_filed(self._engine, query)

    def holds(self) -> list[Hold]:
        """The files that are passed over, or are about to be."""
        columns = tables.holds.c
        states = [HoldState.HELD.value, HoldState.RETURNING.value]
        # Of one path the newest comes last, and counts.
        query = sa.select(tables.holds).where(columns.state.in_(states)).order_by(columns.image_id)
        return [entry_rows.to_hold(row) for row in read(self._engine, query)]

    def known_inboxes(self) -> set[str]:
        """The names of the inboxes that a daemon on this database has ever seen."""
        return {name for (name,) in read(self._engine, sa.select(tables.inboxes.c.name))}

    def remember_inbox(self, name: str, path: str) -> None:
        """Record that an inbox exists."""
        self._writer.write([Change(self._steps.inbox, [{"name": name, "path": to_text(path)}])])

    def _said(self, plans: Sequence[Plan]) -> list[Change]:
        """What a model said of these, and whose duplicates may come."""
        return [
            Change(self._steps.predict, [row for plan in plans for row in entry_rows.of_predictions(plan)]),
            Change(self._steps.content, [entry_rows.of_content(plan) for plan in plans if plan.stands]),
        ]

    def _filed(self, arrivals: Sequence[Arrival], now: datetime) -> list[Change]:
        rows = [{"b_id": arrival.id, "b_token": arrival.token, "b_filed_at": now} for arrival in arrivals]
        return [Change(self._steps.filed, rows)]


def _remembering() -> sa.Select[Any]:
    """The inboxes of which some files are known; never a walk through all of these."""
    inbox = tables.inboxes.c.name
    return sa.select(inbox).where(sa.exists().where(tables.copied.c.inbox == inbox))


def _is_looked_at() -> sa.ColumnElement[bool]:
    """Whether a file that is known was only looked at."""
    return sa.exists().where(tables.images.c.id == tables.copied.c.image_id, tables.images.c.token == STAYS)
