"""The rows of sidecars: where those of a picture are, and how it is recorded that they are elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed.paths import to_text
from pigeonholed.tables import MANY, sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def follow() -> sa.Update:
    """The statement that records another place, or None where there is none any more."""
    return (
        sa.update(sidecars)
        .where(sidecars.c.image_id == sa.bindparam("b_id"), sidecars.c.destination == sa.bindparam("b_from"))
        .values(destination=sa.bindparam("b_destination"))
    )


def companions_of(
    ids: Sequence[int], ask: Callable[[sa.Select[Any]], Iterable[Any]], *, filed: bool = False
) -> dict[int, list[Any]]:
    """The rows of what came with pictures, by their ids; one look where no picture ever had any.

    Args:
        ids: of the pictures.
        ask: answers a question to the database with rows.
        filed: only what was filed with them.
    """
    columns, found = sidecars.c, dict[int, list[Any]]()
    if not ids or not list(ask(sa.select(columns.image_id).limit(1))):
        return found
    for start in range(0, len(ids), MANY):
        query = sa.select(sidecars).where(columns.image_id.in_(ids[start : start + MANY]))
        query = query.where(columns.destination.is_not(None)) if filed else query
        for row in ask(query.order_by(columns.image_id, columns.part)):
            found.setdefault(row.image_id, []).append(row)
    return found


def followed(image: int, old: str, new: str | None) -> dict[str, Any]:
    """The values of `follow` for one sidecar."""
    return {"b_id": image, "b_from": to_text(old), "b_destination": None if new is None else to_text(new)}
