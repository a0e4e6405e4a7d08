"""Subnets: made, changed, deleted. One that is made here is of kind veth."""

import time
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Final

from sqlalchemy import delete, select

from fargate_agent.controlplane.ec2.changes import (
    Change,
    find,
    has_dependencies,
    invalid_value,
    missing,
    new_resource_id,
    of_settings,
    unsupported_here,
    value_of,
)
from fargate_agent.controlplane.ec2.networks import NAMING, render_subnet
from fargate_agent.controlplane.ec2.objects import list_objects
from fargate_agent.controlplane.ec2.tags import drop_tags, put_tags
from fargate_agent.controlplane.ec2.vpcs import find_vpc, parse_range
from fargate_agent.controlplane.ec2.zones import find_zone
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.model import Eni, SubnetCursor
from fargate_agent.controlplane.state.networks import NetworkObject, SubnetRow, VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import IN_USE
from fargate_agent.controlplane.vpc.plan import plan_subnet
from fargate_agent.controlplane.vpc.seeding import ROUTE_TABLE, fill_row
from fargate_agent.controlplane.vpc_settings import IPV6_SUBNET_PREFIX, SubnetSettings

_KEPT: Final = (
    "AssignIpv6AddressOnCreation",
    "EnableDns64",
    "MapPublicIpOnLaunch",
)
_NAMING: Final = {
    "EnableResourceNameDnsARecordOnLaunch": "EnableResourceNameDnsARecord",
    "EnableResourceNameDnsAAAARecordOnLaunch": "EnableResourceNameDnsAAAARecord",
}


async def find_subnet(session: Session, id_: str) -> SubnetRow:
    """Return a subnet.

    Raises:
        ApiError: there is none.
    """
    return await find(session, SubnetRow, id_, "InvalidSubnetID.NotFound", "subnet ID")


async def create_subnet(plane: Plane, session: Session, request: Json) -> Json:
    """Make a subnet in the range of a VPC."""
    if "CidrBlock" not in request:
        raise missing("cidrBlock")
    for member in ("Ipv6Native", "OutpostArn", "Ipv4IpamPoolId", "Ipv6IpamPoolId"):
        if request.get(member):
            raise unsupported_here(member)
    vpc = await find_vpc(session, request["VpcId"])
    cidr = parse_range(request["CidrBlock"], "InvalidSubnet.Range")
    if not any(cidr.subnet_of(IPv4Network(block)) for block in vpc.cidr_blocks):
        raise ApiError("InvalidSubnet.Range", f"The CIDR '{cidr}' is invalid.")
    ipv6 = _parse_ipv6(request, vpc)
    await _check_apart(session, vpc, cidr, ipv6)
    zone = await find_zone(plane, session, request)
    planned = plan_subnet(
        SubnetSettings(
            id=new_resource_id("subnet"), cidr=cidr, ipv6_cidr=ipv6, availability_zone=zone
        ),
        plane.settings.region,
        vpc.id,
    )
    row = SubnetRow(id=planned.id, from_settings=False, attributes={}, created_at=time.time())
    fill_row(row, planned)
    session.add(row)
    await session.flush()
    tags = await put_tags(session, request, "subnet", row.id)
    return {"Subnet": render_subnet(plane.arns, row, 0, tags)}


async def delete_subnet(plane: Plane, session: Session, request: Json) -> Json:
    """Delete a subnet in which there is no ENI."""
    del plane
    row = await find_subnet(session, request["SubnetId"])
    if row.from_settings:
        raise of_settings("subnet", row.id)
    enis = select(Eni.id).where(Eni.subnet_id == row.id, IN_USE)
    gateways = [
        one.id
        for one in await list_objects(session, "natgateway", row.vpc_id)
        if one.document["SubnetId"] == row.id
    ]
    if gateways or await session.scalar(enis.limit(1)) is not None:
        raise has_dependencies("subnet", row.id)
    for table in await list_objects(session, ROUTE_TABLE, row.vpc_id):
        _take_from_table(table, row.id)
    await session.execute(delete(SubnetCursor).where(SubnetCursor.subnet_id == row.id))
    await drop_tags(session, [row.id])
    await session.delete(row)
    return {}


async def modify_subnet_attribute(plane: Plane, session: Session, request: Json) -> Json:
    """Keep an attribute of a subnet; none changes what its ENIs are."""
    del plane
    row = await find_subnet(session, request["SubnetId"])
    changed = {m: value_of(request, m) for m in _KEPT if value_of(request, m) is not None}
    naming = {
        shown: value_of(request, member)
        for member, shown in _NAMING.items()
        if value_of(request, member) is not None
    }
    if "PrivateDnsHostnameTypeOnLaunch" in request:
        naming["HostnameType"] = request["PrivateDnsHostnameTypeOnLaunch"]
    if not changed and not naming:
        raise unsupported_here("This attribute of a subnet")
    shown = render_naming(row) | naming
    row.attributes = {**row.attributes, **changed, "PrivateDnsNameOptionsOnLaunch": shown}
    return {}


def render_naming(row: SubnetRow) -> Json:
    """Return the options for names of a subnet's ENIs, which are shown and not followed."""
    found: Json = row.attributes.get("PrivateDnsNameOptionsOnLaunch", NAMING)
    return found


def _take_from_table(table: NetworkObject, subnet_id: str) -> None:
    kept = [one for one in table.document["Associations"] if one.get("SubnetId") != subnet_id]
    table.document = {**table.document, "Associations": kept}


def _parse_ipv6(request: Json, vpc: VpcRow) -> IPv6Network | None:
    if "Ipv6CidrBlock" not in request:
        return None
    text = request["Ipv6CidrBlock"]
    try:
        network = IPv6Network(text, strict=False)
    except ValueError:
        raise invalid_value(
            f"Value ({text[:64]}) for parameter ipv6CidrBlock is invalid."
        ) from None
    inside = any(network.subnet_of(IPv6Network(block)) for block in vpc.ipv6_cidr_blocks)
    if network.prefixlen != IPV6_SUBNET_PREFIX or not inside:
        raise ApiError("InvalidSubnet.Range", f"The CIDR '{network}' is invalid.")
    return network


async def _check_apart(
    session: Session, vpc: VpcRow, cidr: IPv4Network, ipv6: IPv6Network | None
) -> None:
    rows = (await session.scalars(select(SubnetRow).where(SubnetRow.vpc_id == vpc.id))).all()
    for row in rows:
        if cidr.overlaps(IPv4Network(row.cidr)):
            raise _conflict(cidr)
        taken = None if row.ipv6_cidr is None else IPv6Network(row.ipv6_cidr)
        if ipv6 is not None and taken is not None and ipv6.overlaps(taken):
            raise _conflict(ipv6)
    # of subnets that have left the settings while tasks were there
    left = select(Eni.address).where(IN_USE, Eni.subnet_id.not_in(select(SubnetRow.id)))
    if any(IPv4Address(address) in cidr for address in await session.scalars(left)):
        raise _conflict(cidr)


def _conflict(cidr: IPv4Network | IPv6Network) -> ApiError:
    return ApiError("InvalidSubnet.Conflict", f"The CIDR '{cidr}' conflicts with another subnet")


CHANGES: Final[dict[str, Change]] = {
    "CreateSubnet": create_subnet,
    "DeleteSubnet": delete_subnet,
    "ModifySubnetAttribute": modify_subnet_attribute,
}
