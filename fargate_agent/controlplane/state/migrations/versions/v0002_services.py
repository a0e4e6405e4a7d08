"""Services, events, account settings; what is reserved on an instance, and who holds it."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

DEFAULT_STORAGE_GIB = 20
"""Of a task of the first version that asked for none."""

_TASKS = sa.table(
    "tasks",
    sa.column("id", sa.String()),
    sa.column("document", sa.JSON()),
    sa.column("tags", sa.JSON()),
    sa.column("storage_gib", sa.Integer()),
    sa.column("instance_id", sa.String()),
    sa.column("last_status", sa.String()),
    sa.column("cpu_units", sa.Integer()),
    sa.column("memory_mib", sa.Integer()),
)
_CLUSTERS = sa.table(
    "clusters",
    sa.column("name", sa.String()),
    sa.column("document", sa.JSON()),
    sa.column("tags", sa.JSON()),
)
_INSTANCES = sa.table(
    "container_instances",
    sa.column("id", sa.String()),
    sa.column("document", sa.JSON()),
    sa.column("tags", sa.JSON()),
    sa.column("served", sa.Boolean()),
    sa.column("reserved_tasks", sa.Integer()),
    sa.column("reserved_cpu_units", sa.Integer()),
    sa.column("reserved_memory_mib", sa.Integer()),
    sa.column("reserved_storage_gib", sa.Integer()),
)


def upgrade() -> None:
    """Add tables and columns; tags get a column of their own, reservations are counted."""
    _add_tables()
    _add_services()
    _add_columns()
    _change_tasks()
    _move_tags(_CLUSTERS, _CLUSTERS.c.name)
    _move_tags(_TASKS, _TASKS.c.id)
    _move_tags(_INSTANCES, _INSTANCES.c.id)
    _note_storage()
    _count_reservations()


def _add_tables() -> None:
    op.create_table(
        "account_settings",
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "name"),
    )
    op.create_table(
        "events",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False),
            nullable=False,
        ),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_at", "events", ["at"])
    op.create_index("ix_events_subject", "events", ["subject"])
    op.create_table(
        "followers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("held_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "subnet_cursors",
        sa.Column("subnet_id", sa.String(), nullable=False),
        sa.Column("last_address", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subnet_id"),
    )


def _add_services() -> None:
    op.create_table(
        "services",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("cluster", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("desired_count", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("failed_starts", sa.Integer(), nullable=False),
        sa.Column("start_not_before", sa.Double(), nullable=False),
        sa.Column("steady", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["cluster"], ["clusters.name"]),
        sa.PrimaryKeyConstraint("id"),
    )
    present = sa.text("status != 'INACTIVE'")
    op.create_index(
        "services_by_name",
        "services",
        ["cluster", "name"],
        unique=True,
        sqlite_where=present,
        postgresql_where=present,
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("service_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("rollout_state", sa.String(), nullable=False),
        sa.Column("rollout_reason", sa.String(), nullable=False),
        sa.Column("desired_count", sa.Integer(), nullable=False),
        sa.Column("failed_tasks", sa.Integer(), nullable=False),
        sa.Column("rolls_back", sa.Boolean(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["service_id"], ["services.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("deployments_of_service", "deployments", ["service_id", "status"])


def _add_columns() -> None:
    op.add_column("clusters", _list("tags"))
    op.add_column("enis", sa.Column("ipv6_address", sa.String()))
    op.add_column("enis", _list("security_groups"))
    for name in ("tasks", "cpu_units", "memory_mib", "storage_gib"):
        op.add_column("container_instances", _number(f"reserved_{name}"))
    for column in (
        _list("tags"),
        sa.Column("storage_gib", sa.Integer()),
        _flag("served", default=False),
        sa.Column("connection", sa.String()),
        sa.Column("connected_until", sa.Double(), nullable=False, server_default="0"),
        _flag("silent", default=False),
    ):
        op.add_column("container_instances", column)
    if op.get_bind().dialect.name != "sqlite":  # there every integer has 64 bits
        op.alter_column("container_instances", "timeline", type_=sa.BigInteger())


def _change_tasks() -> None:
    op.add_column("tasks", _number("storage_gib"))
    op.add_column("tasks", sa.Column("deployment_id", sa.String()))
    op.add_column("tasks", _flag("settled", default=False))
    op.add_column("tasks", _list("tags"))
    op.add_column(
        "tasks",
        sa.Column("health_status", sa.String(), nullable=False, server_default="UNKNOWN"),
    )
    op.add_column("tasks", _flag("connected", default=True))
    op.add_column("tasks", sa.Column("protected_until", sa.Double()))
    for column in ("cluster", "instance_id", "last_status"):
        op.drop_index(f"ix_tasks_{column}", "tasks")
    live = sa.text("last_status != 'STOPPED'")
    op.create_index("tasks_listed", "tasks", ["cluster", "desired_status", "id"])
    op.create_index(
        "tasks_live", "tasks", ["instance_id"], sqlite_where=live, postgresql_where=live
    )
    op.create_index("tasks_of_deployment", "tasks", ["deployment_id", "settled"])
    op.create_index("tasks_of_instance", "tasks", ["instance_id"])
    op.create_index("tasks_stopped", "tasks", ["stopped_at"])


def _list(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=False, server_default="[]")


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), nullable=False, server_default="0")


def _flag(name: str, *, default: bool) -> sa.Column[Any]:
    value = sa.true() if default else sa.false()
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=value)


def _move_tags(table: sa.TableClause, key: sa.ColumnClause[Any]) -> None:
    connection = op.get_bind()
    for name, document in connection.execute(sa.select(key, table.c.document)).all():
        if "tags" in document:
            tags = document.pop("tags")
            connection.execute(
                sa.update(table).where(key == name).values(document=document, tags=tags)
            )


def _note_storage() -> None:
    connection = op.get_bind()
    for task_id, document in connection.execute(sa.select(_TASKS.c.id, _TASKS.c.document)).all():
        gib = document.get("ephemeralStorage", {}).get("sizeInGiB", DEFAULT_STORAGE_GIB)
        connection.execute(sa.update(_TASKS).where(_TASKS.c.id == task_id).values(storage_gib=gib))


def _count_reservations() -> None:
    connection = op.get_bind()
    sums = sa.select(
        _TASKS.c.instance_id,
        sa.func.count(),
        sa.func.sum(_TASKS.c.cpu_units),
        sa.func.sum(_TASKS.c.memory_mib),
        sa.func.sum(_TASKS.c.storage_gib),
    )
    live = sums.where(_TASKS.c.last_status != "STOPPED").group_by(_TASKS.c.instance_id)
    for instance_id, count, cpu_units, memory_mib, storage_gib in connection.execute(live).all():
        connection.execute(
            sa.update(_INSTANCES)
            .where(_INSTANCES.c.id == instance_id)
            .values(
                served=True,
                reserved_tasks=count,
                reserved_cpu_units=cpu_units,
                reserved_memory_mib=memory_mib,
                reserved_storage_gib=storage_gib,
            )
        )
