"""Subnets whose ENIs are NICs or VLANs of agents' machines."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add columns, which the next start fills from the settings."""
    op.add_column("subnets", sa.Column("nics", sa.JSON()))
    op.add_column("subnets", sa.Column("vlan_ids", sa.String()))
    op.add_column("enis", sa.Column("vlan_id", sa.Integer()))
