"""Gateways and public addresses: kept and shown.

What leaves a VPC leaves by the agent's machine.
"""

import time
from ipaddress import IPv4Network
from typing import Final

from fargate_agent.controlplane.ec2.changes import Change, has_dependencies, missing
from fargate_agent.controlplane.ec2.objects import (
    add_object,
    find_object,
    find_repeated,
    list_objects,
    reading,
    remove_object,
    show,
)
from fargate_agent.controlplane.ec2.subnets import find_subnet
from fargate_agent.controlplane.ec2.vpcs import find_vpc
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.networks import NetworkObject
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

GATEWAY: Final = "internet-gateway"
EGRESS_ONLY: Final = "egress-only-internet-gateway"
NAT: Final = "natgateway"
ADDRESS: Final = "elastic-ip"

PUBLIC_RANGES: Final = (IPv4Network("203.0.113.0/24"), IPv4Network("198.51.100.0/24"))
"""Elastic addresses are of these, which nobody has. Source: RFC 5737."""

_ABSENT: Final = {
    GATEWAY: ("InvalidInternetGatewayID.NotFound", "internetGateway ID"),
    EGRESS_ONLY: ("InvalidGatewayID.NotFound", "egressOnlyInternetGateway ID"),
    NAT: ("NatGatewayNotFound", "NAT gateway"),
    ADDRESS: ("InvalidAllocationID.NotFound", "allocation ID"),
}


async def find_gateway(session: Session, kind: str, id_: str) -> NetworkObject:
    """Return a gateway or an address.

    Raises:
        ApiError: there is none.
    """
    return await find_object(session, kind, id_, *_ABSENT[kind])


async def create_internet_gateway(plane: Plane, session: Session, request: Json) -> Json:
    """Make a gateway that no VPC has yet."""
    document = {"OwnerId": plane.settings.account}
    row = await add_object(session, kind=GATEWAY, prefix="igw", request=request, document=document)
    return {"InternetGateway": await show(session, row, render_internet_gateway)}


async def attach_internet_gateway(plane: Plane, session: Session, request: Json) -> Json:
    """Give a VPC its gateway."""
    del plane
    row = await find_gateway(session, GATEWAY, request["InternetGatewayId"])
    vpc = await find_vpc(session, request["VpcId"])
    for taken in (row, *await list_objects(session, GATEWAY, vpc.id)):
        if taken.vpc_id is not None:
            raise ApiError(
                "Resource.AlreadyAssociated",
                f"resource {taken.id} is already attached to network {taken.vpc_id}",
            )
    row.vpc_id = vpc.id
    return {}


async def detach_internet_gateway(plane: Plane, session: Session, request: Json) -> Json:
    """Take a VPC's gateway away."""
    del plane
    row = await find_gateway(session, GATEWAY, request["InternetGatewayId"])
    if row.vpc_id != request["VpcId"]:
        raise ApiError(
            "Gateway.NotAttached",
            f"resource {row.id} is not attached to network {request['VpcId'][:64]}",
        )
    row.vpc_id = None
    return {}


async def delete_internet_gateway(plane: Plane, session: Session, request: Json) -> Json:
    """Delete a gateway that no VPC has."""
    del plane
    row = await find_gateway(session, GATEWAY, request["InternetGatewayId"])
    if row.vpc_id is not None:
        raise has_dependencies("internetGateway", row.id)
    await remove_object(session, row)
    return {}


async def create_egress_only_gateway(plane: Plane, session: Session, request: Json) -> Json:
    """Make the gateway of a VPC for IPv6 that goes out only."""
    del plane
    vpc = await find_vpc(session, request["VpcId"])
    row = await find_repeated(session, EGRESS_ONLY, request) or await add_object(
        session, kind=EGRESS_ONLY, prefix="eigw", request=request, document={}, vpc_id=vpc.id
    )
    return {"EgressOnlyInternetGateway": await show(session, row, render_egress_only_gateway)}


async def delete_egress_only_gateway(plane: Plane, session: Session, request: Json) -> Json:
    """Delete such a gateway."""
    del plane
    id_ = request["EgressOnlyInternetGatewayId"]
    await remove_object(session, await find_gateway(session, EGRESS_ONLY, id_))
    return {"ReturnCode": True}


async def allocate_address(plane: Plane, session: Session, request: Json) -> Json:
    """Give a public address, which nothing here is reached by."""
    taken = {row.document["PublicIp"] for row in await list_objects(session, ADDRESS)}
    free = (str(host) for network in PUBLIC_RANGES for host in network.hosts())
    address = next((one for one in free if one not in taken), None)
    if address is None:
        raise ApiError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    document = {
        "Domain": "vpc",
        "NetworkBorderGroup": plane.settings.region,
        "PublicIp": address,
        "PublicIpv4Pool": "amazon",
    }
    row = await add_object(
        session, kind=ADDRESS, prefix="eipalloc", request=request, document=document
    )
    return {**document, "AllocationId": row.id}


async def release_address(plane: Plane, session: Session, request: Json) -> Json:
    """Take a public address back that no gateway has."""
    del plane
    if "AllocationId" not in request:
        raise missing("allocationId")
    row = await find_gateway(session, ADDRESS, request["AllocationId"])
    if "AssociationId" in row.document:
        raise ApiError("InvalidIPAddress.InUse", f"Address {row.document['PublicIp']} is in use.")
    await remove_object(session, row)
    return {}


async def describe_address_attributes(plane: Plane, session: Session, request: Json) -> Json:
    """Return the addresses without a domain name: none has one."""
    del plane
    rows = [
        await find_gateway(session, ADDRESS, id_) for id_ in request.get("AllocationIds", [])
    ] or await list_objects(session, ADDRESS)
    return {
        "Addresses": [
            {"AllocationId": row.id, "PublicIp": row.document["PublicIp"]} for row in rows
        ]
    }


async def create_nat_gateway(plane: Plane, session: Session, request: Json) -> Json:
    """Make a NAT gateway in a subnet."""
    del plane
    row = await find_repeated(session, NAT, request)
    if row is None:
        row = await _make_nat_gateway(session, request)
    shown = await show(session, row, render_nat_gateway)
    return {"ClientToken": request.get("ClientToken", ""), "NatGateway": shown}


async def _make_nat_gateway(session: Session, request: Json) -> NetworkObject:
    if "SubnetId" not in request:
        raise missing("subnetId")
    subnet = await find_subnet(session, request["SubnetId"])
    is_public = request.get("ConnectivityType", "public") == "public"
    if is_public and "AllocationId" not in request:
        raise missing("AllocationId")
    addresses: list[Json] = []
    if is_public:
        address = await find_gateway(session, ADDRESS, request["AllocationId"])
        if "AssociationId" in address.document:
            raise ApiError(
                "Resource.AlreadyAssociated", f"Elastic IP address [{address.id}] is already in use"
            )
        association = address.id.replace("eipalloc", "eipassoc")
        address.document = {**address.document, "AssociationId": association}
        addresses = [
            {
                "AllocationId": address.id,
                "AssociationId": association,
                "IsPrimary": True,
                "PublicIp": address.document["PublicIp"],
                "Status": "succeeded",
            }
        ]
    return await add_object(
        session,
        kind=NAT,
        prefix="nat",
        request=request,
        document={
            "ConnectivityType": "public" if is_public else "private",
            "CreateTime": time.time(),
            "NatGatewayAddresses": addresses,
            "State": "available",
            "SubnetId": subnet.id,
        },
        vpc_id=subnet.vpc_id,
    )


async def delete_nat_gateway(plane: Plane, session: Session, request: Json) -> Json:
    """Delete a NAT gateway; it is gone at once."""
    del plane
    row = await find_gateway(session, NAT, request["NatGatewayId"])
    for used in row.document["NatGatewayAddresses"]:
        address = await find_gateway(session, ADDRESS, used["AllocationId"])
        kept = dict(address.document)
        kept.pop("AssociationId", None)
        address.document = kept
    await session.flush()
    await remove_object(session, row)
    return {"NatGatewayId": row.id}


async def render_internet_gateway(session: Session, row: NetworkObject, tags: list[Json]) -> Json:  # noqa: RUF029 - called as those that read
    """Return a gateway as DescribeInternetGateways answers it."""
    del session
    attached = [{"State": "available", "VpcId": row.vpc_id}] if row.vpc_id else []
    return {**row.document, "Attachments": attached, "InternetGatewayId": row.id, "Tags": tags}


async def render_egress_only_gateway(  # noqa: RUF029 - called as those that read
    session: Session, row: NetworkObject, tags: list[Json]
) -> Json:
    """Return a gateway as DescribeEgressOnlyInternetGateways answers it."""
    del session
    attached = [{"State": "attached", "VpcId": row.vpc_id}]
    return {"Attachments": attached, "EgressOnlyInternetGatewayId": row.id, "Tags": tags}


async def render_address(session: Session, row: NetworkObject, tags: list[Json]) -> Json:  # noqa: RUF029 - called as those that read
    """Return an address as DescribeAddresses answers it."""
    del session
    return {**row.document, "AllocationId": row.id, "Tags": tags}


async def render_nat_gateway(session: Session, row: NetworkObject, tags: list[Json]) -> Json:  # noqa: RUF029 - called as those that read
    """Return a gateway as DescribeNatGateways answers it."""
    del session
    return {**row.document, "NatGatewayId": row.id, "Tags": tags, "VpcId": row.vpc_id}


read_internet_gateways = reading(GATEWAY, render_internet_gateway)
read_egress_only_gateways = reading(EGRESS_ONLY, render_egress_only_gateway)
read_addresses = reading(ADDRESS, render_address)
read_nat_gateways = reading(NAT, render_nat_gateway)


CHANGES: Final[dict[str, Change]] = {
    "AllocateAddress": allocate_address,
    "AttachInternetGateway": attach_internet_gateway,
    "CreateEgressOnlyInternetGateway": create_egress_only_gateway,
    "CreateInternetGateway": create_internet_gateway,
    "CreateNatGateway": create_nat_gateway,
    "DeleteEgressOnlyInternetGateway": delete_egress_only_gateway,
    "DeleteInternetGateway": delete_internet_gateway,
    "DeleteNatGateway": delete_nat_gateway,
    "DetachInternetGateway": detach_internet_gateway,
    "ReleaseAddress": release_address,
}
