"""The VPC, its subnets and its security groups as EC2 describes them."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import SecurityGroup, Subnet, Vpc, count_in_use
from fargate_agent.controlplane.vpc_settings import DEFAULT_SUBNET, RuleSettings

Thing = TypeVar("Thing")


async def read_vpcs(  # noqa: RUF029 - reads nothing, but is called as those that do
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the VPC."""
    del session, ids
    if plane.vpc.id > after:
        yield render_vpc(plane.settings, plane.vpc)


async def read_subnets(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the subnets in the order of their ids, those behind `after`."""
    del ids
    taken = dict((await session.execute(count_in_use())).all())
    for subnet in _in_order(plane.vpc.subnets, after):
        yield render_subnet(plane.settings, plane.vpc, subnet, taken.get(subnet.id, 0))


async def read_security_groups(  # noqa: RUF029 - reads nothing, but is called as those that do
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the security groups in the order of their ids, those behind `after`."""
    del session, ids
    for group in _in_order(plane.vpc.security_groups, after):
        yield render_security_group(plane.settings, plane.vpc, group)


def render_vpc(settings: ControlPlaneSettings, vpc: Vpc) -> Json:
    """Return the VPC as DescribeVpcs answers it.

    Ranges of subnets that are not in its own are ranges of it too, as it is with AWS.
    """
    subnets = vpc.subnets.values()
    blocks: list[IPv4Network] = [settings.vpc_cidr]
    ipv6_blocks: list[IPv6Network] = [settings.vpc_ipv6_cidr] if settings.vpc_ipv6_cidr else []
    for subnet in subnets:
        if not any(subnet.cidr.subnet_of(block) for block in blocks):
            blocks.append(subnet.cidr)
        ipv6 = subnet.ipv6_cidr
        if ipv6 is not None and not any(ipv6.subnet_of(block) for block in ipv6_blocks):
            ipv6_blocks.append(ipv6)
    return {
        "CidrBlock": str(settings.vpc_cidr),
        "CidrBlockAssociationSet": [
            {
                "AssociationId": _association_id(vpc, position),
                "CidrBlock": str(block),
                "CidrBlockState": {"State": "associated"},
            }
            for position, block in enumerate(blocks)
        ],
        "DhcpOptionsId": "default",
        "InstanceTenancy": "default",
        "Ipv6CidrBlockAssociationSet": _render_ipv6_blocks(ipv6_blocks, vpc.id),
        "IsDefault": True,
        "OwnerId": settings.account,
        "State": "available",
        "Tags": [],
        "VpcId": vpc.id,
    }


def render_subnet(settings: ControlPlaneSettings, vpc: Vpc, subnet: Subnet, taken: int) -> Json:
    """Return a subnet as DescribeSubnets answers it; `taken` of its addresses are in use."""
    return {
        "AssignIpv6AddressOnCreation": subnet.ipv6_cidr is not None,
        "AvailabilityZone": subnet.availability_zone,
        "AvailableIpAddressCount": max(0, subnet.address_count - taken),
        "CidrBlock": str(subnet.cidr),
        "DefaultForAz": subnet.id == DEFAULT_SUBNET,
        "Ipv6CidrBlockAssociationSet": _render_ipv6_blocks(
            [subnet.ipv6_cidr] if subnet.ipv6_cidr else [], subnet.id
        ),
        "Ipv6Native": False,
        "MapPublicIpOnLaunch": False,
        "OwnerId": settings.account,
        "State": "available",
        "SubnetArn": f"arn:aws:ec2:{settings.region}:{settings.account}:subnet/{subnet.id}",
        "SubnetId": subnet.id,
        "Tags": [],
        "VpcId": vpc.id,
    }


def render_security_group(settings: ControlPlaneSettings, vpc: Vpc, group: SecurityGroup) -> Json:
    """Return a security group as DescribeSecurityGroups answers it."""
    return {
        "Description": group.description,
        "GroupId": group.id,
        "GroupName": group.name,
        "IpPermissions": [_render_rule(rule, settings.account) for rule in group.ingress],
        "IpPermissionsEgress": [_render_rule(rule, settings.account) for rule in group.egress],
        "OwnerId": settings.account,
        "SecurityGroupArn": (
            f"arn:aws:ec2:{settings.region}:{settings.account}:security-group/{group.id}"
        ),
        "Tags": [],
        "VpcId": vpc.id,
    }


def _render_rule(rule: RuleSettings, account: str) -> Json:
    shown: Json = {
        "IpProtocol": rule.protocol,
        "IpRanges": [{"CidrIp": str(cidr)} for cidr in rule.cidrs if cidr.version == 4],
        "Ipv6Ranges": [{"CidrIpv6": str(cidr)} for cidr in rule.cidrs if cidr.version == 6],
        "PrefixListIds": [],
        "UserIdGroupPairs": [{"GroupId": group, "UserId": account} for group in rule.groups],
    }
    if rule.protocol != "-1":
        shown |= {"FromPort": rule.from_port, "ToPort": rule.to_port}
    return shown


def _render_ipv6_blocks(blocks: Sequence[IPv6Network], of: str) -> list[Json]:
    return [
        {
            "AssociationId": f"{of}-ipv6-{position}",
            "Ipv6CidrBlock": str(block),
            "Ipv6CidrBlockState": {"State": "associated"},
        }
        for position, block in enumerate(blocks)
    ]


def _association_id(vpc: Vpc, position: int) -> str:
    return f"vpc-cidr-assoc-{vpc.id.removeprefix('vpc-')}-{position}"


def _in_order(things: Mapping[str, Thing], after: str) -> list[Thing]:
    return [things[name] for name in sorted(things) if name > after]
