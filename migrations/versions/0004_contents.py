"""Which contents are filed, for inboxes that set duplicates aside, and up to which row that is known.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "contents",
        sa.Column("inbox", sa.Text, primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("image_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.add_column("inboxes", sa.Column("contents_to", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("inboxes", "contents_to")
    op.drop_table("contents")
