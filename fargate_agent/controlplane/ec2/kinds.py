"""The calls there are: what can be described, and what can be changed."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.ec2 import group_rules, security_groups, tags
from fargate_agent.controlplane.ec2.changes import Change
from fargate_agent.controlplane.ec2.filters import (
    INTERFACE_FILTERS,
    RULE_FILTERS,
    SECURITY_GROUP_FILTERS,
    SUBNET_FILTERS,
    TAG_FILTERS,
    VPC_FILTERS,
    Path,
)
from fargate_agent.controlplane.ec2.group_rules import read_group_rules
from fargate_agent.controlplane.ec2.interfaces import read_interfaces
from fargate_agent.controlplane.ec2.networks import read_security_groups, read_subnets, read_vpcs
from fargate_agent.controlplane.ec2.tags import read_all_tags
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

Read = Callable[[Plane, Session, Collection[str] | None, str], AsyncIterator[Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Something that can be described."""

    member: str
    """Of the answer."""
    id_member: str
    """What orders the answer, and tells one from another."""
    named_by: Mapping[str, str]
    """Members of the request that name some, and the members of the answer they stand for."""
    absent: str
    """The error when one that was named is not there."""
    absent_text: str
    filters: Mapping[str, Path]
    read: Read


KINDS: Final[Mapping[str, Kind]] = {
    "DescribeNetworkInterfaces": Kind(
        member="NetworkInterfaces",
        id_member="NetworkInterfaceId",
        named_by={"NetworkInterfaceIds": "NetworkInterfaceId"},
        absent="InvalidNetworkInterfaceID.NotFound",
        absent_text="The networkInterface ID '{}' does not exist",
        filters=INTERFACE_FILTERS,
        read=read_interfaces,
    ),
    "DescribeSecurityGroups": Kind(
        member="SecurityGroups",
        id_member="GroupId",
        named_by={"GroupIds": "GroupId", "GroupNames": "GroupName"},
        absent="InvalidGroup.NotFound",
        absent_text="The security group '{}' does not exist",
        filters=SECURITY_GROUP_FILTERS,
        read=read_security_groups,
    ),
    "DescribeSubnets": Kind(
        member="Subnets",
        id_member="SubnetId",
        named_by={"SubnetIds": "SubnetId"},
        absent="InvalidSubnetID.NotFound",
        absent_text="The subnet ID '{}' does not exist",
        filters=SUBNET_FILTERS,
        read=read_subnets,
    ),
    "DescribeVpcs": Kind(
        member="Vpcs",
        id_member="VpcId",
        named_by={"VpcIds": "VpcId"},
        absent="InvalidVpcID.NotFound",
        absent_text="The vpc ID '{}' does not exist",
        filters=VPC_FILTERS,
        read=read_vpcs,
    ),
    "DescribeSecurityGroupRules": Kind(
        member="SecurityGroupRules",
        id_member="SecurityGroupRuleId",
        named_by={"SecurityGroupRuleIds": "SecurityGroupRuleId"},
        absent="InvalidSecurityGroupRuleId.NotFound",
        absent_text="The security group rule ID '{}' does not exist",
        filters=RULE_FILTERS,
        read=read_group_rules,
    ),
    "DescribeTags": Kind(
        member="Tags",
        id_member="Place",
        named_by={},
        absent="",
        absent_text="",
        filters=TAG_FILTERS,
        read=read_all_tags,
    ),
}
"""By operation."""


CHANGES: Final[Mapping[str, Change]] = {
    **group_rules.CHANGES,
    **security_groups.CHANGES,
    **tags.CHANGES,
}
"""By operation."""
