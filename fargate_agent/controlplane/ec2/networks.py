"""VPCs, subnets and security groups as EC2 describes them."""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.ec2.tags import read_tags
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.networks import GroupRow, RuleRow, SubnetRow, VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import count_in_use
from fargate_agent.controlplane.vpc.network import plan_row
from fargate_agent.controlplane.vpc_settings import DEFAULT_SUBNET

NAMING: Final[Json] = {
    "HostnameType": "ip-name",
    "EnableResourceNameDnsARecord": False,
    "EnableResourceNameDnsAAAARecord": False,
}
"""How ENIs of a subnet are named."""


async def read_vpcs(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the VPCs in the order of their ids, those behind `after`."""
    query = select(VpcRow).where(VpcRow.id > after).order_by(VpcRow.id)
    if ids is not None:
        query = query.where(VpcRow.id.in_(ids))
    rows = (await session.scalars(query)).all()
    tags = await read_tags(session, [row.id for row in rows])
    for row in rows:
        yield render_vpc(plane.arns, row, tags[row.id])


async def read_subnets(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the subnets in the order of their ids, those behind `after`."""
    query = select(SubnetRow).where(SubnetRow.id > after).order_by(SubnetRow.id)
    if ids is not None:
        query = query.where(SubnetRow.id.in_(ids))
    rows = (await session.scalars(query)).all()
    taken = dict((await session.execute(count_in_use())).all())
    tags = await read_tags(session, [row.id for row in rows])
    for row in rows:
        yield render_subnet(plane.arns, row, taken.get(row.id, 0), tags[row.id])


async def read_security_groups(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the security groups in the order of their ids, those behind `after`."""
    query = select(GroupRow).where(GroupRow.id > after).order_by(GroupRow.id)
    if ids is not None:
        query = query.where(GroupRow.id.in_(ids))
    groups = (await session.scalars(query)).all()
    known = [group.id for group in groups]
    rules: dict[str, list[RuleRow]] = defaultdict(list)
    chosen = select(RuleRow).where(RuleRow.group_id.in_(known)).order_by(RuleRow.position)
    for rule in await session.scalars(chosen):
        rules[rule.group_id].append(rule)
    tags = await read_tags(session, known)
    for group in groups:
        yield render_security_group(plane.arns, group, rules[group.id], tags[group.id])


def render_vpc(arns: Arns, vpc: VpcRow, tags: list[Json]) -> Json:
    """Return a VPC as DescribeVpcs answers it."""
    name = vpc.id.removeprefix("vpc-")
    return {
        "CidrBlock": vpc.cidr_blocks[0],
        "CidrBlockAssociationSet": [
            {
                "AssociationId": f"vpc-cidr-assoc-{name}-{position}",
                "CidrBlock": block,
                "CidrBlockState": {"State": "associated"},
            }
            for position, block in enumerate(vpc.cidr_blocks)
        ],
        "DhcpOptionsId": "default",
        "InstanceTenancy": "default",
        "Ipv6CidrBlockAssociationSet": _render_ipv6_blocks(vpc.ipv6_cidr_blocks, vpc.id),
        "IsDefault": vpc.from_settings,
        "OwnerId": arns.account,
        "State": "available",
        "Tags": tags,
        "VpcId": vpc.id,
    }


def render_subnet(arns: Arns, row: SubnetRow, taken: int, tags: list[Json]) -> Json:
    """Return a subnet as DescribeSubnets answers it; `taken` of its addresses are in use."""
    return {
        "AssignIpv6AddressOnCreation": row.ipv6_cidr is not None,
        "AvailabilityZone": row.availability_zone,
        "AvailabilityZoneId": zone_id(row.availability_zone),
        "AvailableIpAddressCount": max(0, plan_row(row).address_count - taken),
        "CidrBlock": row.cidr,
        "DefaultForAz": row.id == DEFAULT_SUBNET,
        "Ipv6CidrBlockAssociationSet": _render_ipv6_blocks(
            [row.ipv6_cidr] if row.ipv6_cidr else [], row.id
        ),
        "EnableDns64": False,
        "Ipv6Native": False,
        "MapCustomerOwnedIpOnLaunch": False,
        "MapPublicIpOnLaunch": False,
        "OwnerId": arns.account,
        "PrivateDnsNameOptionsOnLaunch": NAMING,
        "State": "available",
        "SubnetArn": resource_arn(arns, "subnet", row.id),
        "SubnetId": row.id,
        "Tags": tags,
        "VpcId": row.vpc_id,
        **row.attributes,
    }


def render_security_group(
    arns: Arns, group: GroupRow, rules: Sequence[RuleRow], tags: list[Json]
) -> Json:
    """Return a security group as DescribeSecurityGroups answers it."""
    return {
        "Description": group.description,
        "GroupId": group.id,
        "GroupName": group.name,
        "IpPermissions": render_permissions((r for r in rules if not r.is_egress), arns.account),
        "IpPermissionsEgress": render_permissions((r for r in rules if r.is_egress), arns.account),
        "OwnerId": arns.account,
        "SecurityGroupArn": resource_arn(arns, "security-group", group.id),
        "Tags": tags,
        "VpcId": group.vpc_id,
    }


def render_permissions(rules: Iterable[RuleRow], account: str) -> list[Json]:
    """Return rules as EC2 shows them: one permission for each protocol and range of ports."""
    found: dict[tuple[str, int, int], Json] = {}
    for rule in rules:
        key = (rule.protocol, rule.from_port, rule.to_port)
        if key not in found:
            shown: Json = {
                "IpProtocol": rule.protocol,
                "IpRanges": [],
                "Ipv6Ranges": [],
                "PrefixListIds": [],
                "UserIdGroupPairs": [],
            }
            if has_ports(rule.protocol):
                shown |= {"FromPort": rule.from_port, "ToPort": rule.to_port}
            found[key] = shown
        described = {} if rule.description is None else {"Description": rule.description}
        if rule.source_group is not None:
            source = {"GroupId": rule.source_group, "UserId": account, **described}
            found[key]["UserIdGroupPairs"].append(source)
        elif rule.prefix_list is not None:
            listed = {"PrefixListId": rule.prefix_list, **described}
            found[key]["PrefixListIds"].append(listed)
        elif ":" in str(rule.cidr):
            found[key]["Ipv6Ranges"].append({"CidrIpv6": rule.cidr, **described})
        else:
            found[key]["IpRanges"].append({"CidrIp": rule.cidr, **described})
    return list(found.values())


def has_ports(protocol: str) -> bool:
    """Whether a rule for a protocol has ports, or the type and code of ICMP."""
    return protocol in {"tcp", "udp", "icmp", "icmpv6"}


def resource_arn(arns: Arns, kind: str, id_: str) -> str:
    """Return the ARN of something of EC2."""
    return f"arn:aws:ec2:{arns.region}:{arns.account}:{kind}/{id_}"


def zone_id(zone: str) -> str:
    """Return the id of an availability zone, as AWS makes one from its name; of ours always az1."""
    area, place, number = (*zone.split("-"), "", "")[:3]
    return f"{area[:2]}{place[:1]}{number[:1]}-az{max(1, ord(number[-1:] or 'a') - ord('a') + 1)}"


def _render_ipv6_blocks(blocks: Sequence[str], of: str) -> list[Json]:
    return [
        {
            "AssociationId": f"{of}-ipv6-{position}",
            "Ipv6CidrBlock": block,
            "Ipv6CidrBlockState": {"State": "associated"},
        }
        for position, block in enumerate(blocks)
    ]
