"""The tables of the VPC: what EC2's calls make and change, and what the settings say of it.

A change here needs a migration in `migrations/versions`.
"""

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fargate_agent.controlplane.state.model import Base


class VpcRow(Base):
    """A VPC."""

    __tablename__ = "vpcs"

    id: Mapped[str] = mapped_column(primary_key=True)
    cidr_blocks: Mapped[list[Any]]
    """The first one is what DescribeVpcs shows as its range."""
    ipv6_cidr_blocks: Mapped[list[Any]]
    default_group: Mapped[str]
    """Of ENIs that name no security group."""
    from_settings: Mapped[bool]
    """Whether the settings say that it is there."""
    attributes: Mapped[dict[str, Any]]
    """Members of DescribeVpcs and DescribeVpcAttribute that are kept and shown."""
    created_at: Mapped[float]


class SubnetRow(Base):
    """A subnet."""

    __tablename__ = "subnets"

    id: Mapped[str] = mapped_column(primary_key=True)
    vpc_id: Mapped[str] = mapped_column(ForeignKey("vpcs.id"))
    cidr: Mapped[str]
    ipv6_cidr: Mapped[str | None]
    kind: Mapped[str]
    """One of `EniKind`."""
    parent: Mapped[str | None]
    """What a macvlan or a VLAN hangs on, or the network whose CNI plugins connect tasks."""
    nics: Mapped[list[Any] | None]
    """MACs."""
    vlan_ids: Mapped[str | None]
    gateway: Mapped[str]
    gateway6: Mapped[str | None]
    mtu: Mapped[int]
    """Bytes."""
    nat: Mapped[bool] = mapped_column(default=True)
    """Whether its tasks reach other networks than the VPC."""
    dns: Mapped[list[Any]]
    availability_zone: Mapped[str]
    from_settings: Mapped[bool]
    attributes: Mapped[dict[str, Any]]
    """Members of DescribeSubnets that are kept and shown."""
    created_at: Mapped[float]


class GroupRow(Base):
    """A security group."""

    __tablename__ = "security_groups"

    id: Mapped[str] = mapped_column(primary_key=True)
    vpc_id: Mapped[str] = mapped_column(ForeignKey("vpcs.id"))
    name: Mapped[str]
    description: Mapped[str]
    from_settings: Mapped[bool]
    settings_digest: Mapped[str | None]
    """Of the rules as the settings said them last."""
    changed: Mapped[bool] = mapped_column(default=False)
    """Whether a call of the API has changed its rules, so that those of the settings don't count.
    """
    version: Mapped[int] = mapped_column(default=1)
    """Counts what agents have to be told: changes of rules, and of members that a rule names."""
    created_at: Mapped[float]

    __table_args__ = (Index("security_groups_by_name", "vpc_id", "name", unique=True),)


class RuleRow(Base):
    """One rule of a security group: one protocol, one range of ports, one source or destination."""

    __tablename__ = "security_group_rules"

    id: Mapped[str] = mapped_column(primary_key=True)
    group_id: Mapped[str] = mapped_column(ForeignKey("security_groups.id", ondelete="CASCADE"))
    position: Mapped[int]
    """Orders the rules of a group as they were made."""
    is_egress: Mapped[bool]
    protocol: Mapped[str]
    from_port: Mapped[int]
    to_port: Mapped[int]
    cidr: Mapped[str | None]
    source_group: Mapped[str | None]
    prefix_list: Mapped[str | None]
    """Exactly one of these three."""
    description: Mapped[str | None]

    __table_args__ = (
        Index("security_group_rules_of_group", "group_id"),
        Index("security_group_rules_by_source", "source_group"),
        Index("security_group_rules_by_prefix_list", "prefix_list"),
    )


class NetworkObject(Base):
    """Something else of EC2 that is kept and shown: a prefix list, a route table, a gateway."""

    __tablename__ = "network_objects"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(index=True)
    vpc_id: Mapped[str | None]
    client_token: Mapped[str | None]
    document: Mapped[dict[str, Any]]
    """As its Describe call answers it, without tags."""
    created_at: Mapped[float]


class ResourceTag(Base):
    """A tag of something that EC2's calls name."""

    __tablename__ = "resource_tags"

    resource_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
