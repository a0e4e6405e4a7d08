"""Route tables: kept and shown. Where packets go, the agents' machines decide."""

from collections.abc import Sequence
from typing import Final

from fargate_agent.controlplane.ec2.changes import (
    DONE,
    Change,
    has_dependencies,
    invalid_value,
    missing,
    unsupported_here,
)
from fargate_agent.controlplane.ec2.gateways import EGRESS_ONLY, GATEWAY, NAT, find_gateway
from fargate_agent.controlplane.ec2.objects import (
    add_object,
    find_object,
    find_repeated,
    list_objects,
    reading,
    remove_object,
    show,
)
from fargate_agent.controlplane.ec2.rules import parse_cidr
from fargate_agent.controlplane.ec2.subnets import find_subnet
from fargate_agent.controlplane.ec2.vpcs import find_vpc
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.networks import NetworkObject, VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc.seeding import ROUTE_TABLE, new_association_id

_TARGETS: Final = {
    "GatewayId": GATEWAY,
    "NatGatewayId": NAT,
    "EgressOnlyInternetGatewayId": EGRESS_ONLY,
}
_ASSOCIATED: Final[Json] = {"State": "associated"}


async def create_route_table(plane: Plane, session: Session, request: Json) -> Json:
    """Make a table with the routes inside its VPC."""
    del plane
    row = await find_repeated(session, ROUTE_TABLE, request)
    if row is None:
        vpc = await find_vpc(session, request["VpcId"])
        row = await add_object(
            session,
            kind=ROUTE_TABLE,
            prefix="rtb",
            request=request,
            document={"Main": None, "Associations": [], "Routes": []},
            vpc_id=vpc.id,
        )
    return {"RouteTable": await show(session, row, render_route_table)}


async def delete_route_table(plane: Plane, session: Session, request: Json) -> Json:
    """Delete a table that no subnet has, and that isn't the main one."""
    del plane
    row = await _find(session, request["RouteTableId"])
    if row.document["Main"] or row.document["Associations"]:
        raise has_dependencies("routeTable", row.id)
    await remove_object(session, row)
    return {}


async def create_route(plane: Plane, session: Session, request: Json) -> Json:
    """Add a route to a table."""
    del plane
    row = await _find(session, request["RouteTableId"])
    route = await _parse_route(session, row, request)
    if any(_is_same(route, other) for other in row.document["Routes"]):
        raise ApiError(
            "RouteAlreadyExists", f"The route identified by {_destination(route)} already exists."
        )
    _keep(row, [*row.document["Routes"], route])
    return DONE


async def replace_route(plane: Plane, session: Session, request: Json) -> Json:
    """Put another target into a route."""
    del plane
    row = await _find(session, request["RouteTableId"])
    route = await _parse_route(session, row, request)
    _take_out(row, route)
    _keep(row, [*row.document["Routes"], route])
    return {}


async def delete_route(plane: Plane, session: Session, request: Json) -> Json:
    """Take a route out of a table."""
    del plane
    row = await _find(session, request["RouteTableId"])
    _take_out(row, _parse_destination(request))
    return {}


async def associate(plane: Plane, session: Session, request: Json) -> Json:
    """Give a subnet another table than the main one."""
    del plane
    row = await _find(session, request["RouteTableId"])
    if "SubnetId" not in request:
        raise unsupported_here("A route table for a gateway")
    subnet = await find_subnet(session, request["SubnetId"])
    if subnet.vpc_id != row.vpc_id:
        raise invalid_value(
            f"Route table {row.id} and subnet {subnet.id} belong to different networks"
        )
    for table in await list_objects(session, ROUTE_TABLE, row.vpc_id):
        for known in table.document["Associations"]:
            if known["SubnetId"] == subnet.id and table.id != row.id:
                raise ApiError(
                    "Resource.AlreadyAssociated",
                    f"the specified association for route table {row.id} conflicts with an existing"
                    " association",
                )
            if known["SubnetId"] == subnet.id:
                return _render_new(known["Id"])
    made = {"Id": new_association_id(), "SubnetId": subnet.id}
    row.document = {**row.document, "Associations": [*row.document["Associations"], made]}
    return _render_new(made["Id"])


async def disassociate(plane: Plane, session: Session, request: Json) -> Json:
    """Give a subnet the main table again."""
    del plane
    id_ = request["AssociationId"]
    row, known = await _find_association(session, id_)
    if known is None:
        raise invalid_value(f"cannot disassociate the main route table association {id_}")
    _drop(row, id_)
    return {}


async def replace_association(plane: Plane, session: Session, request: Json) -> Json:
    """Give a subnet, or the VPC as its main one, another table."""
    del plane
    row = await _find(session, request["RouteTableId"])
    former, known = await _find_association(session, request["AssociationId"])
    if former.vpc_id != row.vpc_id:
        raise invalid_value(f"Route table {row.id} belongs to a different network")
    new_id = new_association_id()
    if known is None:
        former.document = {**former.document, "Main": None}
        row.document = {**row.document, "Main": new_id}
    else:
        _drop(former, known["Id"])
        made = {**known, "Id": new_id}
        row.document = {**row.document, "Associations": [*row.document["Associations"], made]}
    answer = _render_new(new_id)
    return {"NewAssociationId": answer["AssociationId"], "AssociationState": _ASSOCIATED}


async def render_route_table(session: Session, row: NetworkObject, tags: list[Json]) -> Json:
    """Return a table as DescribeRouteTables answers it."""
    vpc = await session.get_one(VpcRow, row.vpc_id)
    local = {"GatewayId": "local", "Origin": "CreateRouteTable", "State": "active"}
    main = [{"Id": row.document["Main"]}] if row.document["Main"] else []
    return {
        "Associations": [
            {
                "AssociationState": _ASSOCIATED,
                "Main": "SubnetId" not in one,
                "RouteTableAssociationId": one["Id"],
                "RouteTableId": row.id,
                **({"SubnetId": one["SubnetId"]} if "SubnetId" in one else {}),
            }
            for one in (*main, *row.document["Associations"])
        ],
        "PropagatingVgws": [],
        "RouteTableId": row.id,
        "Routes": [
            *({"DestinationCidrBlock": block, **local} for block in vpc.cidr_blocks),
            *({"DestinationIpv6CidrBlock": block, **local} for block in vpc.ipv6_cidr_blocks),
            *row.document["Routes"],
        ],
        "Tags": tags,
        "VpcId": row.vpc_id,
    }


read_route_tables = reading(ROUTE_TABLE, render_route_table)


async def _find(session: Session, id_: str) -> NetworkObject:
    return await find_object(
        session, ROUTE_TABLE, id_, "InvalidRouteTableID.NotFound", "routeTable ID"
    )


async def _find_association(session: Session, id_: str) -> tuple[NetworkObject, Json | None]:
    """Return the table of an association, and the association if it isn't that as a main table."""
    for table in await list_objects(session, ROUTE_TABLE):
        if table.document["Main"] == id_:
            return table, None
        for known in table.document["Associations"]:
            if known["Id"] == id_:
                return table, known
    raise ApiError(
        "InvalidAssociationID.NotFound", f"The association ID '{id_[:64]}' does not exist"
    )


async def _parse_route(session: Session, row: NetworkObject, request: Json) -> Json:
    route = _parse_destination(request)
    targets = {member: request[member] for member in _TARGETS if request.get(member)}
    if len(targets) != 1:
        raise unsupported_here("A route to anything but one gateway")
    for member, id_ in targets.items():
        await find_gateway(session, _TARGETS[member], id_)
    del row
    return {**route, **targets, "Origin": "CreateRoute", "State": "active"}


def _parse_destination(request: Json) -> Json:
    for member, version in (("DestinationCidrBlock", 4), ("DestinationIpv6CidrBlock", 6)):
        if request.get(member):
            return {member: parse_cidr(request[member], version)}
    if request.get("DestinationPrefixListId"):
        raise unsupported_here("A route to a prefix list")
    raise missing("destinationCidrBlock")


def _take_out(row: NetworkObject, route: Json) -> None:
    kept = [other for other in row.document["Routes"] if not _is_same(route, other)]
    if len(kept) == len(row.document["Routes"]):
        raise ApiError(
            "InvalidRoute.NotFound",
            f"no route with destination-cidr-block {_destination(route)} in route table {row.id}",
        )
    _keep(row, kept)


def _keep(row: NetworkObject, routes: Sequence[Json]) -> None:
    row.document = {**row.document, "Routes": list(routes)}


def _drop(row: NetworkObject, association: str) -> None:
    kept = [one for one in row.document["Associations"] if one["Id"] != association]
    row.document = {**row.document, "Associations": kept}


def _is_same(route: Json, other: Json) -> bool:
    return _destination(route) == _destination(other)


def _destination(route: Json) -> str:
    return str(route.get("DestinationCidrBlock") or route.get("DestinationIpv6CidrBlock"))


def _render_new(id_: str) -> Json:
    return {"AssociationId": id_, "AssociationState": _ASSOCIATED}


CHANGES: Final[dict[str, Change]] = {
    "AssociateRouteTable": associate,
    "CreateRoute": create_route,
    "CreateRouteTable": create_route_table,
    "DeleteRoute": delete_route,
    "DeleteRouteTable": delete_route_table,
    "DisassociateRouteTable": disassociate,
    "ReplaceRoute": replace_route,
    "ReplaceRouteTableAssociation": replace_association,
}
