"""Subnets whose tasks reach nothing but their VPC."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add a column, which the next start fills from the settings."""
    kind = sa.Boolean()
    op.add_column("subnets", sa.Column("nat", kind, nullable=False, server_default=sa.true()))
