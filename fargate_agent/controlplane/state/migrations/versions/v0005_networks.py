"""VPCs, subnets and security groups, which were in the settings alone."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ENIS = sa.table(
    "enis",
    sa.column("id", sa.String()),
    sa.column("task_id", sa.String()),
    sa.column("security_groups", sa.JSON()),
    sa.column("availability_zone", sa.String()),
    sa.column("vpc_id", sa.String()),
)
_TASKS = sa.table("tasks", sa.column("id", sa.String()), sa.column("message", sa.JSON()))
_MEMBERS = sa.table(
    "eni_groups", sa.column("eni_id", sa.String()), sa.column("group_id", sa.String())
)


def upgrade() -> None:
    """Add tables, which each start fills from the settings; ENIs say where they are."""
    _add_vpcs()
    _add_security_groups()
    _add_the_rest()
    op.add_column("enis", sa.Column("availability_zone", sa.String()))
    op.add_column("enis", sa.Column("vpc_id", sa.String()))
    _note_places()


def _add_vpcs() -> None:
    op.create_table(
        "vpcs",
        _text("id"),
        _json("cidr_blocks"),
        _json("ipv6_cidr_blocks"),
        _text("default_group"),
        _flag("from_settings"),
        _json("attributes"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "subnets",
        _text("id"),
        _text("vpc_id"),
        _text("cidr"),
        sa.Column("ipv6_cidr", sa.String(), nullable=True),
        _text("kind"),
        sa.Column("parent", sa.String(), nullable=True),
        _text("gateway"),
        sa.Column("gateway6", sa.String(), nullable=True),
        _number("mtu"),
        _json("dns"),
        _text("availability_zone"),
        _flag("from_settings"),
        _json("attributes"),
        _time("created_at"),
        sa.ForeignKeyConstraint(["vpc_id"], ["vpcs.id"]),
        sa.PrimaryKeyConstraint("id"),
    )


def _add_security_groups() -> None:
    op.create_table(
        "security_groups",
        _text("id"),
        _text("vpc_id"),
        _text("name"),
        _text("description"),
        _flag("from_settings"),
        sa.Column("settings_digest", sa.String(), nullable=True),
        _flag("changed"),
        _number("version"),
        _time("created_at"),
        sa.ForeignKeyConstraint(["vpc_id"], ["vpcs.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("security_groups_by_name", "security_groups", ["vpc_id", "name"], unique=True)
    op.create_table(
        "security_group_rules",
        _text("id"),
        _text("group_id"),
        _number("position"),
        _flag("is_egress"),
        _text("protocol"),
        _number("from_port"),
        _number("to_port"),
        sa.Column("cidr", sa.String(), nullable=True),
        sa.Column("source_group", sa.String(), nullable=True),
        sa.Column("prefix_list", sa.String(), nullable=True),
        sa.Column("description", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["group_id"], ["security_groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    for name, column in (
        ("of_group", "group_id"),
        ("by_source", "source_group"),
        ("by_prefix_list", "prefix_list"),
    ):
        op.create_index(f"security_group_rules_{name}", "security_group_rules", [column])
    op.create_table(
        "eni_groups",
        _text("eni_id"),
        _text("group_id"),
        sa.ForeignKeyConstraint(["eni_id"], ["enis.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("eni_id", "group_id"),
    )
    op.create_index("eni_groups_by_group", "eni_groups", ["group_id"])


def _add_the_rest() -> None:
    op.create_table(
        "network_objects",
        _text("id"),
        _text("kind"),
        sa.Column("vpc_id", sa.String(), nullable=True),
        sa.Column("client_token", sa.String(), nullable=True),
        _json("document"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_network_objects_kind", "network_objects", ["kind"])
    op.create_table(
        "resource_tags",
        _text("resource_id"),
        _text("key"),
        _text("value"),
        sa.PrimaryKeyConstraint("resource_id", "key"),
    )


def _note_places() -> None:
    """Have each ENI say its zone and VPC as its task was told them, and list its groups."""
    connection = op.get_bind()
    found = sa.select(_ENIS.c.id, _ENIS.c.security_groups, _TASKS.c.message).join_from(
        _ENIS, _TASKS, _TASKS.c.id == _ENIS.c.task_id
    )
    for eni_id, groups, message in connection.execute(found).all():
        connection.execute(
            sa.update(_ENIS)
            .where(_ENIS.c.id == eni_id)
            .values(availability_zone=message.get("zone"), vpc_id=message.get("vpcId"))
        )
        for group_id in dict.fromkeys(groups):
            connection.execute(sa.insert(_MEMBERS).values(eni_id=eni_id, group_id=group_id))


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.String(), nullable=False)


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=False)


def _time(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Double(), nullable=False)
