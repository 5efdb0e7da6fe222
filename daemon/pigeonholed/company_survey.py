"""Sidecars that were filed with pictures: are they where their rows say, and if not, beside their pictures?

A sidecar is its owner's to change: only whether it is there is looked at, never what is in it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed.companions import beside, candidates
from pigeonholed.findings import Finding, Kind
from pigeonholed.images import Status
from pigeonholed.paths import from_text, to_text
from pigeonholed.steps import HoldState
from pigeonholed.tables import holds, images, refilings, sidecars

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy.engine import Connection

    from pigeonholed.surveying import Survey

_PAGE = 500
_GOING_BACK = (HoldState.RETURNING.value, HoldState.RETRYING.value)


def read(connection: Connection) -> Iterator[list[dict[str, Any]]]:
    """Every sidecar of a picture that is filed, or will be by a plan, by the ids of the pictures; a page at a time.

    Beside each stand the fields of its picture; all those of a picture are in one page.
    """
    last = 0
    ids = sa.select(sidecars.c.image_id).distinct().order_by(sidecars.c.image_id).limit(_PAGE)
    while page := list(connection.scalars(ids.where(sidecars.c.image_id > last))):
        last = page[-1]
        query = (
            sa.select(
                images.c.id,
                images.c.inbox,
                images.c.status,
                images.c.source_path.label("picture"),
                images.c.destination.label("place"),
                sidecars.c.part,
                sidecars.c.source_path.label("source"),
                sidecars.c.destination,
            )
            .join_from(images, sidecars, sidecars.c.image_id == images.c.id)
            .where(images.c.id.in_(page), images.c.status.in_([Status.FILED.value, Status.PLANNED.value]))
            .where(images.c.destination.is_not(None), sidecars.c.destination.is_not(None))
            .order_by(images.c.id, sidecars.c.part)
        )
        yield [dict(row._mapping) for row in connection.execute(query)]


def left_by_moves(connection: Connection) -> list[tuple[str, str]]:
    """Inbox and old place of each file that is being filed anew: it may be there still."""
    query = sa.select(images.c.inbox, refilings.c.destination).join(refilings, refilings.c.image_id == images.c.id)
    return [(row.inbox, row.destination) for row in connection.execute(query)]


def places(parts: Sequence[dict[str, Any]], picture: str) -> tuple[str, ...]:
    """Where the sidecars of one picture belong if it is at `picture`; all as they stand in the database."""
    sources = [from_text(part["source"]) for part in parts]
    return tuple(map(to_text, beside(from_text(picture), from_text(parts[0]["picture"]), sources)))


def findings(survey: Survey, inbox: str | None) -> Iterator[Finding]:
    """What is not in its place, while its picture is somewhere; found again or not."""
    for missing in list(survey.companions_missing(inbox)):
        folder = survey.outputs[missing["output"]]
        if is_file(folder, missing["destination"]):
            continue
        parts = survey.companions_of(missing["id"])
        picture = missing["found"] or missing["place"]
        index = [part["part"] for part in parts].index(missing["part"])
        suffix = os.path.splitext(missing["destination"])[1]
        near = (places(parts, picture)[index], *map(to_text, candidates(from_text(picture), (suffix,))))
        found = next((path for path in near if survey.claim_place(missing["output"], path)), None)
        kind, what, facts = Kind.SIDECAR_MISSING, "is not where it was filed with its picture", {}
        if found is not None:
            kind, what, facts = Kind.SIDECAR_MOVED, f"is at {found} now", {"found": found}
        yield Finding(kind, missing["destination"], what, folder, missing["inbox"], missing["id"], facts=facts)


def still(connection: Connection, ids: Collection[int]) -> set[tuple[int, str]]:
    """Picture and place of each sidecar of these pictures, as far as they are filed and not on their way back."""
    going = sa.exists().where(holds.c.image_id == images.c.id, holds.c.state.in_(_GOING_BACK))
    query = (
        sa.select(sidecars.c.image_id, sidecars.c.destination)
        .join(images, images.c.id == sidecars.c.image_id)
        .where(sidecars.c.image_id.in_(ids), images.c.status == Status.FILED.value, ~going)
    )
    return {(row.image_id, row.destination) for row in connection.execute(query)}


def is_file(folder: str, path: str) -> bool:
    """Whether a regular file is there at the moment; `path` as it stands in the database."""
    try:
        return stat.S_ISREG(os.lstat(os.path.join(folder, from_text(path))).st_mode)
    except OSError:
        return False
