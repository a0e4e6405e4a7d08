"""Namespaces, services and instances of Cloud Map, and which deployments are registered."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add tables."""
    op.create_table(
        "namespaces",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False, index=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("vpc_id", sa.String()),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "discoverable_services",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("namespace_id", sa.String(), sa.ForeignKey("namespaces.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_index(
        "discoverable_services_by_name",
        "discoverable_services",
        ["namespace_id", "name"],
        unique=True,
    )
    op.create_table(
        "registered_instances",
        sa.Column(
            "service_id",
            sa.String(),
            sa.ForeignKey("discoverable_services.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("is_healthy", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "cloud_map_operations",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("targets", sa.JSON(), nullable=False),
        sa.Column("creator", sa.String(), index=True),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "deployment_registries",
        sa.Column(
            "deployment_id",
            sa.String(),
            sa.ForeignKey("deployments.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("service_id", sa.String(), nullable=False, index=True),
        sa.Column("port", sa.Integer()),
    )
