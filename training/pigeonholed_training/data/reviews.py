"""Labels that people gave to sorted pictures, read from the daemon's database, which may be at work meanwhile."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from pigeonholed import database
from pigeonholed.config import ConfigError, Settings, load_settings
from pigeonholed.errors import UserError
from pigeonholed.images import Placement, Status
from pigeonholed.paths import from_text
from pigeonholed.tables import images, predictions, reviews
from pigeonholed_training.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.engine import Engine

_PAGE: Final = 500  # rows a query


class Source(StrEnum):
    """Who says that a picture is of its class."""

    CONFIRMED = "confirmed"  # a person and the model
    CORRECTED = "corrected"  # a person, and the model said something else, or nothing
    SORTED = "sorted"  # the model alone


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pictures.

    Attributes:
        inboxes: that they came from; empty for all.
        model: that sorted them; None for any.
        since: reviewed then or later; sorted then or later, for those that nobody reviewed. Aware, None for always.
        sure_from: takes sorted pictures, too, that nobody reviewed and of which the model was so sure; None for none.
    """

    inboxes: tuple[str, ...] = ()
    model: str | None = None
    since: datetime | None = None
    sure_from: float | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A filed picture, and what it is said to be.

    Attributes:
        image: its id.
        inbox: that it came from.
        destination: where it was filed, relative to the output, as `os.fsdecode` gives it; None where only a row was
            made of it.
        sha256: of its bytes, hex; None where it could not be read.
        size: its bytes.
        label: its class.
        source: who says so.
    """

    image: int
    inbox: str
    destination: str | None
    sha256: str | None
    size: int
    label: str
    source: Source


def configured(file: Path | None) -> Settings:
    """The configuration of the service: in the file that was named, else where the service finds it.

    Raises:
        Misconfigured: there is none, or it is at fault.
    """
    try:
        return load_settings(file)
    except ConfigError as fault:
        raise Misconfigured(str(fault)) from fault


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Engine]:
    """The database of a configuration, for reading alone: no lock is taken, and the daemon may go on.

    Raises:
        Unavailable: there is none yet, it cannot be read, or is of another version; within the block too.
    """
    file = settings.database.file
    if file is not None and not file.exists():
        raise Unavailable(f"Cannot export: there is no database {file} yet; 'pigeonholed run' makes it and sorts.")
    try:
        engine = database.connect(settings.database.url, read_only=True)
    except UserError as fault:
        raise Unavailable(f"Cannot export: {fault}.") from fault
    try:
        _require_schema(engine)
        yield engine
    except sa.exc.DBAPIError as fault:
        raise Unavailable(f"Cannot export: {database.unavailable(engine, fault)}.") from fault
    except UserError as fault:
        raise Unavailable(f"Cannot export: {fault}.") from fault
    finally:
        engine.dispose()


def _require_schema(engine: Engine) -> None:
    database.check_not_newer(engine)
    have, newest = database.current_revision(engine), database.newest_revision()
    if have != newest:
        raise Unavailable(
            f"Cannot export: the database {database.shown_of(engine)} has schema {have or 'none'} "
            f"and this pigeonholed needs {newest}; run 'pigeonholed db upgrade'."
        )


def labels(engine: Engine, wanted: Wanted) -> Counter[str]:
    """How many pictures of each class `labelled` will give, as of now."""
    found: Counter[str] = Counter()
    with engine.connect() as connection:
        for query in _queries(wanted):
            rows = query.subquery()
            for label, number in connection.execute(sa.select(rows.c.label, sa.func.count()).group_by(rows.c.label)):
                found[label] += number
    return found


def count_reviewed(engine: Engine) -> int:
    """How many pictures anybody ever said anything of, wherever they are now."""
    with engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count(reviews.c.image_id.distinct()))).scalar_one()


def labelled(engine: Engine, wanted: Wanted) -> Iterator[Labelled]:
    """The pictures, reviewed ones first, each by id; few of them are in memory at a time.

    The latest review of a picture counts, which is the one with the highest id. What is not filed any more is passed
    over. Each page is a transaction of its own: an hour of copying holds up no checkpoint of the daemon.
    """
    for query in _queries(wanted):
        after = 0
        while rows := _page(engine, query, after):
            yield from map(_read, rows)
            after = rows[-1].image


def _page(engine: Engine, query: sa.Select[Any], after: int) -> Sequence[sa.Row[Any]]:
    image = query.selected_columns.image
    with engine.connect() as connection:
        return connection.execute(query.where(image > after).order_by(image).limit(_PAGE)).all()


def _queries(wanted: Wanted) -> list[sa.Select[Any]]:
    """What people said and, if it is wanted, what the model said alone."""
    found = [_restricted(_reviewed(), wanted, reviews.c.reviewed_at)]
    if wanted.sure_from is not None:
        found.append(_restricted(_sorted(wanted.sure_from), wanted, images.c.filed_at))
    return found


def _restricted(query: sa.Select[Any], wanted: Wanted, moment: sa.ColumnElement[Any]) -> sa.Select[Any]:
    query = query.where(images.c.status == Status.FILED)
    if wanted.inboxes:
        query = query.where(images.c.inbox.in_(wanted.inboxes))
    if wanted.model is not None:
        query = query.where(images.c.model == wanted.model)
    return query if wanted.since is None else query.where(moment >= wanted.since)


_OF_FILE: Final = (images.c.inbox, images.c.destination, images.c.sha256, images.c.size_bytes)


def _reviewed() -> sa.Select[Any]:
    others = reviews.alias()
    latest = sa.select(sa.func.max(others.c.id)).where(others.c.image_id == reviews.c.image_id).scalar_subquery()
    # The model's own word: the label of the row may have followed a review.
    said = sa.func.coalesce(predictions.c.label, images.c.label)
    source = sa.case((said == reviews.c.label, Source.CONFIRMED.value), else_=Source.CORRECTED.value)
    return (
        sa.select(reviews.c.image_id.label("image"), *_OF_FILE, reviews.c.label, source.label("source"))
        .join_from(reviews, images, images.c.id == reviews.c.image_id)
        .outerjoin(predictions, (predictions.c.image_id == images.c.id) & (predictions.c.rank == 1))
        .where(reviews.c.id == latest)
    )


def _sorted(sure_from: float) -> sa.Select[Any]:
    source = sa.literal(Source.SORTED.value)
    return sa.select(images.c.id.label("image"), *_OF_FILE, images.c.label, source.label("source")).where(
        images.c.outcome == Placement.SORTED,
        images.c.confidence >= sure_from,
        ~sa.exists().where(reviews.c.image_id == images.c.id),
    )


def _read(row: sa.Row[Any]) -> Labelled:
    return Labelled(
        image=row.image,
        inbox=row.inbox,
        destination=None if row.destination is None else from_text(row.destination),
        sha256=row.sha256,
        size=row.size_bytes or 0,
        label=row.label,
        source=Source(row.source),
    )
