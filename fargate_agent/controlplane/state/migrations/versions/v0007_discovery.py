"""Cloud Map: namespaces, services, and their instances."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add tables; no task is an instance yet."""
    op.create_table(
        "discovery_namespaces",
        _text("id"),
        _text("name"),
        _text("kind"),
        _text("vpc_id", nullable=True),
        _text("creator_request_id", nullable=True),
        _text("operation_id"),
        _json("document"),
        _json("tags"),
        sa.Column("version", sa.Integer(), nullable=False),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "discovery_services",
        _text("id"),
        _text("namespace_id"),
        _text("name"),
        _text("key"),
        _text("creator_request_id", nullable=True),
        _json("document"),
        _json("tags"),
        _time("created_at"),
        sa.ForeignKeyConstraint(["namespace_id"], ["discovery_namespaces.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "discovery_services_by_name", "discovery_services", ["namespace_id", "key"], unique=True
    )
    op.create_table(
        "discovery_instances",
        _text("service_id"),
        _text("id"),
        _text("task_id", nullable=True),
        _text("creator_request_id", nullable=True),
        _text("health"),
        _json("attributes"),
        sa.ForeignKeyConstraint(["service_id"], ["discovery_services.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("service_id", "id"),
    )
    op.create_index("discovery_instances_of_task", "discovery_instances", ["task_id"])
    op.create_table(
        "discovery_operations",
        _text("id"),
        _text("kind"),
        _json("targets"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_discovery_operations_created_at", "discovery_operations", ["created_at"])
    op.add_column(
        "tasks", sa.Column("registered", sa.Boolean(), nullable=False, server_default=sa.false())
    )


def _text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=False)


def _time(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Double(), nullable=False)
