"""The statements by which results are made anew; `Refilings` says when each is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import tables
from pigeonholed.companion_rows import follow
from pigeonholed.images import Status
from pigeonholed.statements import Prepared

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

_SAID = ("outcome", "model", "model_version", "label", "confidence", "classified_at")


class RefilingSteps:
    """Each step, prepared for one kind of database. Running one twice is the same as running it once."""

    def __init__(self, dialect: Dialect) -> None:
        images, refilings, predictions = tables.images, tables.refilings, tables.predictions
        this = images.c.id == sa.bindparam("b_id")
        filed, planned = (images.c.status == status.value for status in (Status.FILED, Status.PLANNED))

        def updated(where: Any, *columns: str, **constants: str) -> Prepared:
            given: dict[str, Any] = {name: sa.bindparam(f"b_{name}") for name in columns}
            return Prepared.compile(sa.update(images).where(this, where).values(**given, **constants), dialect)

        self.renew = updated(filed, *_SAID, "filed_at")
        self.intend = Prepared.inserting(refilings, dialect)
        self.plan = updated(sa.or_(filed, planned), *_SAID, "destination", status=Status.PLANNED.value)
        self.redirect = updated(planned, "destination")
        self.filed = updated(planned, "filed_at", status=Status.FILED.value)
        self.back = updated(planned, *_SAID, "destination", "filed_at", status=Status.FILED.value)
        self.forget = Prepared.compile(
            sa.delete(refilings).where(refilings.c.image_id == sa.bindparam("b_id")), dialect
        )
        self.unpredict = Prepared.compile(
            sa.delete(predictions).where(predictions.c.image_id == sa.bindparam("b_id")), dialect
        )
        self.predict = Prepared.inserting(predictions, dialect)
        self.follow = Prepared.compile(follow(), dialect)
