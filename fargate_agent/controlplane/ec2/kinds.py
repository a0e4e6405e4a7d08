"""The calls there are: what can be described, and what can be changed."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.ec2 import (
    gateways,
    group_rules,
    prefix_lists,
    route_tables,
    security_groups,
    subnets,
    tags,
    vpcs,
)
from fargate_agent.controlplane.ec2.acls import read_acls
from fargate_agent.controlplane.ec2.changes import Change
from fargate_agent.controlplane.ec2.filters import (
    ACL_FILTERS,
    ADDRESS_FILTERS,
    EGRESS_ONLY_FILTERS,
    GATEWAY_FILTERS,
    INTERFACE_FILTERS,
    NAT_FILTERS,
    PREFIX_LIST_FILTERS,
    ROUTE_TABLE_FILTERS,
    RULE_FILTERS,
    SECURITY_GROUP_FILTERS,
    SUBNET_FILTERS,
    TAG_FILTERS,
    VPC_FILTERS,
    ZONE_FILTERS,
    Path,
)
from fargate_agent.controlplane.ec2.group_rules import read_group_rules
from fargate_agent.controlplane.ec2.interfaces import read_interfaces
from fargate_agent.controlplane.ec2.networks import read_security_groups, read_subnets, read_vpcs
from fargate_agent.controlplane.ec2.tags import read_all_tags
from fargate_agent.controlplane.ec2.zones import read_zones
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
    "DescribeAddresses": Kind(
        member="Addresses",
        id_member="AllocationId",
        named_by={"AllocationIds": "AllocationId", "PublicIps": "PublicIp"},
        absent="InvalidAllocationID.NotFound",
        absent_text="The allocation ID '{}' does not exist",
        filters=ADDRESS_FILTERS,
        read=gateways.read_addresses,
    ),
    "DescribeAvailabilityZones": Kind(
        member="AvailabilityZones",
        id_member="ZoneName",
        named_by={"ZoneNames": "ZoneName", "ZoneIds": "ZoneId"},
        absent="InvalidParameterValue",
        absent_text="Invalid availability zone: [{}]",
        filters=ZONE_FILTERS,
        read=read_zones,
    ),
    "DescribeEgressOnlyInternetGateways": Kind(
        member="EgressOnlyInternetGateways",
        id_member="EgressOnlyInternetGatewayId",
        named_by={"EgressOnlyInternetGatewayIds": "EgressOnlyInternetGatewayId"},
        absent="InvalidGatewayID.NotFound",
        absent_text="The egressOnlyInternetGateway ID '{}' does not exist",
        filters=EGRESS_ONLY_FILTERS,
        read=gateways.read_egress_only_gateways,
    ),
    "DescribeInternetGateways": Kind(
        member="InternetGateways",
        id_member="InternetGatewayId",
        named_by={"InternetGatewayIds": "InternetGatewayId"},
        absent="InvalidInternetGatewayID.NotFound",
        absent_text="The internetGateway ID '{}' does not exist",
        filters=GATEWAY_FILTERS,
        read=gateways.read_internet_gateways,
    ),
    "DescribeManagedPrefixLists": Kind(
        member="PrefixLists",
        id_member="PrefixListId",
        named_by={"PrefixListIds": "PrefixListId"},
        absent="InvalidPrefixListID.NotFound",
        absent_text="The prefix list ID '{}' does not exist",
        filters=PREFIX_LIST_FILTERS,
        read=prefix_lists.read_prefix_lists,
    ),
    "DescribeNatGateways": Kind(
        member="NatGateways",
        id_member="NatGatewayId",
        named_by={"NatGatewayIds": "NatGatewayId"},
        absent="NatGatewayNotFound",
        absent_text="The NAT gateway '{}' does not exist",
        filters=NAT_FILTERS,
        read=gateways.read_nat_gateways,
    ),
    "DescribeNetworkAcls": Kind(
        member="NetworkAcls",
        id_member="NetworkAclId",
        named_by={"NetworkAclIds": "NetworkAclId"},
        absent="InvalidNetworkAclID.NotFound",
        absent_text="The networkAcl ID '{}' does not exist",
        filters=ACL_FILTERS,
        read=read_acls,
    ),
    "DescribePrefixLists": Kind(
        member="PrefixLists",
        id_member="PrefixListId",
        named_by={"PrefixListIds": "PrefixListId"},
        absent="InvalidPrefixListId.NotFound",
        absent_text="The prefix list ID '{}' does not exist",
        filters=PREFIX_LIST_FILTERS,
        read=prefix_lists.read_prefix_lists,
    ),
    "DescribeRouteTables": Kind(
        member="RouteTables",
        id_member="RouteTableId",
        named_by={"RouteTableIds": "RouteTableId"},
        absent="InvalidRouteTableID.NotFound",
        absent_text="The routeTable ID '{}' does not exist",
        filters=ROUTE_TABLE_FILTERS,
        read=route_tables.read_route_tables,
    ),
}
"""By operation."""


CHANGES: Final[Mapping[str, Change]] = {
    **gateways.CHANGES,
    **group_rules.CHANGES,
    **prefix_lists.CHANGES,
    **route_tables.CHANGES,
    **security_groups.CHANGES,
    **subnets.CHANGES,
    **tags.CHANGES,
    **vpcs.CHANGES,
}
"""By operation."""

READS: Final[Mapping[str, Change]] = {
    "DescribeAddressesAttribute": gateways.describe_address_attributes,
    "DescribeVpcAttribute": vpcs.describe_vpc_attribute,
    "GetManagedPrefixListEntries": prefix_lists.get_prefix_list_entries,
}
"""Those that read one thing, which isn't there or isn't said to be one of a kind."""
