"""How many decoding processes died of a picture, and the pictures that were judged to be poison.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

IS_POISON = sa.text("reason = 'poison'")


def upgrade() -> None:
    op.add_column("images", sa.Column("deaths", sa.Integer, nullable=False, server_default="0"))
    op.create_index("images_poison", "images", ["sha256"], sqlite_where=IS_POISON, postgresql_where=IS_POISON)


def downgrade() -> None:
    op.drop_index("images_poison", "images")
    op.drop_column("images", "deaths")
