"""VPCs: made, changed, deleted.

The agents' machines have one routing table for all of them, so their ranges can't overlap.
"""

import secrets
import time
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from sqlalchemy import select

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
from fargate_agent.controlplane.ec2.networks import render_vpc
from fargate_agent.controlplane.ec2.objects import list_objects, remove_object
from fargate_agent.controlplane.ec2.security_groups import add_group, remove_group
from fargate_agent.controlplane.ec2.tags import drop_tags, put_tags
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.cloudmap import Namespace
from fargate_agent.controlplane.state.networks import GroupRow, NetworkObject, SubnetRow, VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc.seeding import ROUTE_TABLE, render_main_table
from fargate_agent.controlplane.vpc_settings import MAX_SUBNET_PREFIX, MIN_SUBNET_PREFIX

IPV6_VPC_PREFIX: Final = 56
"""Source: Amazon VPC user guide, "VPC CIDR blocks"."""
DEFAULT_GROUP_TEXT: Final = "default VPC security group"

_ATTRIBUTES: Final = {
    "enableDnsHostnames": ("EnableDnsHostnames", False),
    "enableDnsSupport": ("EnableDnsSupport", True),
    "enableNetworkAddressUsageMetrics": ("EnableNetworkAddressUsageMetrics", False),
}
"""By name: the member, and what a new VPC has. Source: EC2 API, CreateVpc."""


async def find_vpc(session: Session, id_: str) -> VpcRow:
    """Return a VPC.

    Raises:
        ApiError: there is none.
    """
    return await find(session, VpcRow, id_, "InvalidVpcID.NotFound", "vpc ID")


async def create_vpc(plane: Plane, session: Session, request: Json) -> Json:
    """Make a VPC with its default security group and its main route table."""
    if "CidrBlock" not in request:
        raise missing("cidrBlock")
    if request.get("InstanceTenancy", "default") != "default":
        raise unsupported_here("Another InstanceTenancy than default")
    cidr = parse_range(request["CidrBlock"], "InvalidVpc.Range")
    others = (await session.scalars(select(VpcRow))).all()
    _check_apart(cidr, others)
    ipv6 = _choose_ipv6(request, others)
    vpc = VpcRow(
        id=new_resource_id("vpc"),
        cidr_blocks=[str(cidr)],
        ipv6_cidr_blocks=[] if ipv6 is None else [str(ipv6)],
        default_group="",
        from_settings=False,
        attributes={},
        created_at=time.time(),
    )
    session.add(vpc)
    await session.flush()
    vpc.default_group = add_group(session, vpc, "default", DEFAULT_GROUP_TEXT, is_open=True).id
    session.add(render_main_table(new_resource_id("rtb"), vpc.id))
    await session.flush()
    tags = await put_tags(session, request, "vpc", vpc.id)
    return {"Vpc": {**render_vpc(plane.arns, vpc, tags), "State": "pending"}}


async def delete_vpc(plane: Plane, session: Session, request: Json) -> Json:
    """Delete a VPC in which there is nothing but what it was made with."""
    del plane
    vpc = await find_vpc(session, request["VpcId"])
    if vpc.from_settings:
        raise of_settings("vpc", vpc.id)
    groups = (await session.scalars(select(GroupRow).where(GroupRow.vpc_id == vpc.id))).all()
    tables = await list_objects(session, ROUTE_TABLE, vpc.id)
    objects = select(NetworkObject.id).where(
        NetworkObject.vpc_id == vpc.id, NetworkObject.kind != ROUTE_TABLE
    )
    subnets = select(SubnetRow.id).where(SubnetRow.vpc_id == vpc.id)
    namespaces = select(Namespace.id).where(Namespace.vpc_id == vpc.id)
    has_more = [
        await session.scalar(query.limit(1)) is not None for query in (objects, subnets, namespaces)
    ]
    if any(has_more) or len(groups) > 1 or len(tables) > 1:
        raise has_dependencies("vpc", vpc.id)
    for group in groups:
        await remove_group(session, group)
    for table in tables:
        await remove_object(session, table)
    await drop_tags(session, [vpc.id])
    await session.delete(vpc)
    return {}


async def modify_vpc_attribute(plane: Plane, session: Session, request: Json) -> Json:
    """Keep an attribute of a VPC."""
    del plane
    vpc = await find_vpc(session, request["VpcId"])
    changed = {
        name: value_of(request, member)
        for name, (member, _) in _ATTRIBUTES.items()
        if value_of(request, member) is not None
    }
    if len(changed) != 1:
        raise ApiError(
            "InvalidParameterCombination", "A request changes exactly one attribute of a VPC"
        )
    vpc.attributes = {**vpc.attributes, **changed}
    return {}


async def describe_vpc_attribute(plane: Plane, session: Session, request: Json) -> Json:
    """Return an attribute of a VPC."""
    del plane
    vpc = await find_vpc(session, request["VpcId"])
    name = request["Attribute"]
    if name not in _ATTRIBUTES:
        raise invalid_value(f"Value ({name[:64]}) for parameter attribute is invalid.")
    member, default = _ATTRIBUTES[name]
    return {"VpcId": vpc.id, member: {"Value": vpc.attributes.get(name, default)}}


def parse_range(text: str, code: str) -> IPv4Network:
    """Return the range of a VPC or a subnet.

    Raises:
        ApiError: it is none, or too small or too large.
    """
    try:
        network = IPv4Network(text, strict=False)
        if not text.rpartition("/")[2].isdecimal():
            raise ValueError(text)  # a mask
    except ValueError:
        raise invalid_value(
            f"Value ({text[:64]}) for parameter cidrBlock is invalid. This is not a valid CIDR"
            " block."
        ) from None
    unfit = network.is_multicast or network.is_loopback or network.is_link_local
    if unfit or not MIN_SUBNET_PREFIX <= network.prefixlen <= MAX_SUBNET_PREFIX:
        raise ApiError(code, f"The CIDR '{text[:64]}' is invalid.")
    return network


def _check_apart(cidr: IPv4Network, others: Sequence[VpcRow]) -> None:
    for other in others:
        for block in other.cidr_blocks:
            if cidr.overlaps(IPv4Network(block)):
                raise ApiError(
                    "InvalidVpc.Range",
                    f"The CIDR '{cidr}' overlaps {block} of {other.id}: the VPCs of a control plane"
                    " share the routes of its agents' machines.",
                )


def _choose_ipv6(request: Json, others: Sequence[VpcRow]) -> IPv6Network | None:
    """Return the IPv6 range of a new VPC: one that is asked for, or a private one that is free."""
    taken = [IPv6Network(block) for other in others for block in other.ipv6_cidr_blocks]
    if "Ipv6CidrBlock" in request:
        try:
            asked = IPv6Network(request["Ipv6CidrBlock"], strict=False)
        except ValueError:
            asked = None
        if asked is None or asked.prefixlen != IPV6_VPC_PREFIX:
            raise ApiError(
                "InvalidVpc.Range", f"The CIDR '{request['Ipv6CidrBlock'][:64]}' is not a /56."
            )
        if any(asked.overlaps(other) for other in taken):
            raise ApiError("InvalidVpc.Range", f"The CIDR '{asked}' overlaps that of another VPC.")
        return asked
    if not request.get("AmazonProvidedIpv6CidrBlock"):
        return None
    while True:
        # Source: RFC 4193, section 3.1: fd00::/8 and 40 random bits; the next 8 are 0.
        address = 0xFD << 120 | secrets.randbits(40) << 80
        network = IPv6Network((address, IPV6_VPC_PREFIX))
        if not any(network.overlaps(other) for other in taken):
            return network


CHANGES: Final[dict[str, Change]] = {
    "CreateVpc": create_vpc,
    "DeleteVpc": delete_vpc,
    "ModifyVpcAttribute": modify_vpc_attribute,
}
