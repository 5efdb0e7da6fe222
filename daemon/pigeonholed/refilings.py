"""The record of results that are made anew: what a row said, what it says now, and what is on its way in between.

Each method is one step and returns when it is durable; each may be repeated. A file that moves has a `planned` row and
one in `refilings` until it is where it belongs: the row of `images` says where it goes, the other where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import tables
from pigeonholed.companion_rows import companions_of, followed
from pigeonholed.images import Arrival, Fingerprint, ImageFile, Placement, Prediction, Status
from pigeonholed.paths import from_text, to_text
from pigeonholed.refiling_steps import RefilingSteps
from pigeonholed.writer import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

    from pigeonholed.writer import Writer

_IDS_AT_A_TIME = 5000
"""A query looks at no more rows: on SQLite nobody can write meanwhile."""

_MADE_BY_MODELS = (Placement.SORTED, Placement.UNSURE)


@dataclass(frozen=True, slots=True)
class Result:
    """What a row says of its picture.

    Attributes:
        placement: sorted or unsure.
        prediction: of an earlier result, the best label is enough.
        destination: relative to the output, as `os.fsdecode` gives it; None for a file that stays in its inbox.
        classified_at: None for now.
        filed_at: None for now.
    """

    placement: Placement
    prediction: Prediction
    destination: str | None
    classified_at: datetime | None = None
    filed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A filed picture that may be looked at again: what it is, and what its row says.

    `beside` says where the companions of the arrival are, in their order, below the output.
    """

    arrival: Arrival
    fingerprint: Fingerprint
    result: Result
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refiling:
    """A new result in place of an old one.

    Attributes:
        candidate: what was filed.
        result: what is to be said of it.
        wanted: the place that the template gives, taken or not.
        followed: old and new place of each sidecar that has moved with it.
    """

    candidate: Candidate
    result: Result
    wanted: str | None
    followed: tuple[tuple[str, str], ...] = ()

    @property
    def moves(self) -> bool:
        """Whether the file goes to another place."""
        return self.result.destination != self.candidate.result.destination


@dataclass(frozen=True, slots=True)
class Choice:
    """Which results are looked at again: those of an inbox that no person has reviewed.

    Attributes:
        inbox: by its name.
        only: sorted or unsure; None for both.
        besides: name and version of a model whose own results are left out; None for none.
    """

    inbox: str
    only: Placement | None = None
    besides: tuple[str, int] | None = None


class Refilings:
    """Rows of `images` with results of models, `predictions` and `refilings`. Any thread.

    Args:
        engine: a database whose schema is the newest.
        writer: started, on the same engine.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._steps = RefilingSteps(engine.dialect)

    def last_id(self) -> int:
        """The id of the newest row; 0 where there is none."""
        with self._engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.max(tables.images.c.id))) or 0)

    def candidates(self, choice: Choice, after: int, through: int, most: int) -> tuple[list[Candidate], int]:
        """Some of the chosen results with ids beyond `after`, by id, and up to which id these are all.

        Never reads more than a few thousand rows, of which perhaps none is chosen: ask again from there, until
        `through`.
        """
        images, reviews, holds = tables.images, tables.reviews, tables.holds
        last = min(through, after + _IDS_AT_A_TIME)
        outcomes = _MADE_BY_MODELS if choice.only is None else (choice.only,)
        query = (
            sa.select(images)
            .where(images.c.id > after, images.c.id <= last, images.c.inbox == choice.inbox)
            .where(images.c.status == Status.FILED.value, images.c.outcome.in_([one.value for one in outcomes]))
            .where(~sa.exists().where(reviews.c.image_id == images.c.id))
            .where(~sa.exists().where(holds.c.image_id == images.c.id))  # an `undo` of it is not over
            .order_by(images.c.id)
            .limit(most)
        )
        if choice.besides is not None:
            model, version = choice.besides
            query = query.where(~sa.and_(images.c.model == model, images.c.model_version == version))
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            companions = companions_of([row.id for row in rows], connection.execute, filed=True)
        found = [_candidate(row, companions.get(row.id, ())) for row in rows]
        return found, found[-1].arrival.id if len(found) == most else last

    def begin(self, refilings: Sequence[Refiling]) -> None:
        """Record new results: those of files that stay are true at once, the others are plans."""
        now = datetime.now(UTC)
        steps = self._steps
        staying = [refiling for refiling in refilings if not refiling.moves]
        moving = [refiling for refiling in refilings if refiling.moves]
        before = self._predictions([refiling.candidate.arrival.id for refiling in moving])
        self._writer.write(
            [
                Change(steps.renew, [_row(one.candidate, one.result, now) for one in staying]),
                Change(steps.intend, [_intent(one.candidate, before) for one in moving]),
                Change(steps.plan, [_row(one.candidate, one.result, now) for one in moving]),
                *self._predict([(one.candidate, one.result.prediction) for one in refilings]),
            ]
        )

    def redirect(self, refiling: Refiling) -> None:
        """Record another destination for a file whose name was taken."""
        row = {"b_id": refiling.candidate.arrival.id, "b_destination": _text(refiling.result.destination)}
        self._writer.write([Change(self._steps.redirect, [row])])

    def end(self, refilings: Sequence[Refiling]) -> None:
        """Record that files are where they were to go, durably."""
        now = datetime.now(UTC)
        rows = [{"b_id": one.candidate.arrival.id, "b_filed_at": now} for one in refilings]
        beside = Change(self._steps.follow, _followed([(one.candidate, one.followed) for one in refilings]))
        self._writer.write([beside, Change(self._steps.filed, rows), Change(self._steps.forget, rows)])

    def follow(self, moved: Sequence[tuple[Candidate, Sequence[tuple[str, str]]]]) -> None:
        """Record that sidecars are in other places now, durably, whatever becomes of their pictures."""
        self._writer.write([Change(self._steps.follow, _followed(moved))])

    def cancel(self, ids: Sequence[int]) -> None:
        """Record that files stay where they were, and that all is as it was."""
        now = datetime.now(UTC)
        old = [candidate for candidate, _result in self._unfinished(ids)]
        self._writer.write(
            [
                Change(self._steps.back, [_row(candidate, candidate.result, now) for candidate in old]),
                *self._predict([(candidate, candidate.result.prediction) for candidate in old]),
                Change(self._steps.forget, [{"b_id": candidate.arrival.id} for candidate in old]),
            ]
        )

    def begun(self) -> list[Refiling]:
        """Moves that an earlier process had planned and not recorded as done: a batch of them at most."""
        return [Refiling(candidate, result, result.destination) for candidate, result in self._unfinished(None)]

    def _unfinished(self, ids: Sequence[int] | None) -> list[tuple[Candidate, Result]]:
        """What is being moved, as its row said before, and what the row says now."""
        images, before = tables.images, tables.refilings
        columns = [column.label(f"before_{column.name}") for column in before.columns]
        query = sa.select(images, *columns).join(before, before.c.image_id == images.c.id).order_by(images.c.id)
        if ids is not None:
            query = query.where(before.c.image_id.in_(ids))
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            companions = companions_of([row.id for row in rows], connection.execute, filed=True)
        return [(_before(row, companions.get(row.id, ())), _result(row)) for row in rows]

    def _predictions(self, ids: Sequence[int]) -> dict[int, list[tuple[str, float]]]:
        """Labels and confidences as they are recorded now, the best first."""
        columns = tables.predictions.c
        query = sa.select(tables.predictions).where(columns.image_id.in_(ids)).order_by(columns.image_id, columns.rank)
        found: dict[int, list[tuple[str, float]]] = {}
        if ids:
            with self._engine.connect() as connection:
                for row in connection.execute(query):
                    found.setdefault(row.image_id, []).append((row.label, row.confidence))
        return found

    def _predict(self, made: Sequence[tuple[Candidate, Prediction]]) -> list[Change]:
        """Put other predictions in the place of those that are recorded."""
        rows = [
            {"image_id": candidate.arrival.id, "rank": rank, "label": label, "confidence": confidence}
            for candidate, prediction in made
            for rank, (label, confidence) in enumerate(prediction.ranked, 1)
        ]
        ids = [{"b_id": candidate.arrival.id} for candidate, _prediction in made]
        return [Change(self._steps.unpredict, ids), Change(self._steps.predict, rows)]


def _followed(moved: Sequence[tuple[Candidate, Sequence[tuple[str, str]]]]) -> list[dict[str, Any]]:
    return [followed(candidate.arrival.id, *step) for candidate, steps in moved for step in steps]


def _candidate(row: Any, companions: Sequence[Any]) -> Candidate:
    file = ImageFile(row.inbox, from_text(row.source_path), row.size_bytes, row.mtime_ns)
    arrival = Arrival(row.id, file, row.arrival, row.token, 0.0).with_companions(
        (one.part, ImageFile(row.inbox, from_text(one.source_path), one.size_bytes, one.mtime_ns), False)
        for one in companions
    )
    beside = tuple(from_text(one.destination) for one in companions)
    return Candidate(arrival, Fingerprint(row.sha256, row.size_bytes, row.mtime_ns), _result(row), beside)


def _result(row: Any) -> Result:
    prediction = Prediction(row.model, row.model_version, ((row.label, row.confidence),))
    destination = None if row.destination is None else from_text(row.destination)
    return Result(Placement(row.outcome), prediction, destination, row.classified_at, row.filed_at)


def _before(row: Any, companions: Sequence[Any]) -> Candidate:
    """What was filed, as its row said before the move was planned."""
    ranked = tuple((label, confidence) for label, confidence in row.before_predictions)
    prediction = Prediction(row.before_model, row.before_model_version, ranked)
    result = Result(
        Placement(row.before_outcome),
        prediction,
        from_text(row.before_destination),
        row.before_classified_at,
        row.before_filed_at,
    )
    return replace(_candidate(row, companions), result=result)


def _row(candidate: Candidate, result: Result, now: datetime) -> dict[str, Any]:
    prediction = result.prediction
    return {
        "b_id": candidate.arrival.id,
        "b_outcome": result.placement.value,
        "b_model": prediction.model,
        "b_model_version": prediction.version,
        "b_label": prediction.label,
        "b_confidence": prediction.confidence,
        "b_destination": _text(result.destination),
        "b_classified_at": result.classified_at or now,
        "b_filed_at": result.filed_at or now,
    }


def _intent(candidate: Candidate, predictions: dict[int, list[tuple[str, float]]]) -> dict[str, Any]:
    result = candidate.result
    said = result.prediction
    return {
        "image_id": candidate.arrival.id,
        "destination": _text(result.destination),
        "outcome": result.placement.value,
        "model": said.model,
        "model_version": said.version,
        "label": said.label,
        "confidence": said.confidence,
        "predictions": predictions.get(candidate.arrival.id) or list(said.ranked),
        "classified_at": result.classified_at,
        "filed_at": result.filed_at,
    }


def _text(destination: str | None) -> str | None:
    return None if destination is None else to_text(destination)
