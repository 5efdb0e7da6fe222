"""Images, predictions, models, reviews, and the identity of the database.

Revision: 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)
IN_FLIGHT = sa.text("status IN ('claimed', 'ingested', 'planned')")


def upgrade() -> None:
    op.create_table(
        "images",
        sa.Column("id", BIG, primary_key=True, autoincrement=False),
        sa.Column("inbox", sa.Text, nullable=False),
        sa.Column("source_path", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("mtime_ns", sa.BigInteger),
        sa.Column("width", sa.Integer),
        sa.Column("height", sa.Integer),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("reason", sa.String(16)),
        sa.Column("detail", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("model_version", sa.Integer),
        sa.Column("label", sa.Text),
        sa.Column("confidence", sa.Float),
        sa.Column("destination", sa.Text),
        sa.Column("arrived_at", TIME, nullable=False),
        sa.Column("classified_at", TIME),
        sa.Column("filed_at", TIME),
        sa.Column("arrival", sa.String(32), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="1"),
    )
    op.create_index("images_in_flight", "images", ["status"], sqlite_where=IN_FLIGHT, postgresql_where=IN_FLIGHT)
    op.create_table(
        "predictions",
        sa.Column("image_id", BIG, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("rank", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("loaded_at", TIME, nullable=False),
    )
    op.create_table(
        "reviews",
        sa.Column("id", BIG, primary_key=True),
        sa.Column("image_id", BIG, sa.ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("previous_label", sa.Text),
        sa.Column("reviewed_at", TIME, nullable=False),
        sa.Column("reviewer", sa.Text),
    )
    op.create_index("ix_reviews_image_id", "reviews", ["image_id"])
    op.create_table(
        "holds",
        sa.Column("image_id", BIG, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("inbox", sa.Text, nullable=False),
        sa.Column("source_path", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
    )
    op.create_table("inboxes", sa.Column("name", sa.Text, primary_key=True), sa.Column("path", sa.Text, nullable=False))
    op.create_table("identity", sa.Column("id", sa.String(32), primary_key=True))


def downgrade() -> None:
    for table in ("identity", "inboxes", "holds", "reviews", "models", "predictions", "images"):
        op.drop_table(table)
