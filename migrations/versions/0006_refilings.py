"""Files that are moved within the output because another model says otherwise, and what their rows said before.

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refilings",
        sa.Column(
            "image_id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.ForeignKey("images.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("predictions", sa.JSON, nullable=False),
        sa.Column("classified_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("filed_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    # A move that is under way would be forgotten, and its row be taken for one of a file that was never filed.
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM refilings")):
        raise RuntimeError("'reclassify' was broken off: start the service of this version once, then go back")
    op.drop_table("refilings")
