"""Subnets whose tasks don't leave the VPC."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add a column, which the next start fills from the settings."""
    op.add_column(
        "subnets", sa.Column("nat", sa.Boolean(), nullable=False, server_default=sa.true())
    )
