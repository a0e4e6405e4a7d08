"""Namespaces of Cloud Map: a private zone of a VPC, or names for DiscoverInstances alone."""

import re
import secrets
import time
from typing import Final

from sqlalchemy import func, select

from fargate_agent.controlplane.cloudmap.calls import (
    find_repeated,
    invalid_input,
    last_part,
    namespace_arn,
    new_cloud_map_id,
    parse_cloud_map_page,
    render_cloud_map_page,
    start_operation,
)
from fargate_agent.controlplane.cloudmap.filters import check_filters, matches
from fargate_agent.controlplane.cloudmap.tags import check_tags
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.cloudmap import DiscoverableService, Namespace
from fargate_agent.controlplane.state.networks import VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

DNS_PRIVATE: Final = "DNS_PRIVATE"
HTTP: Final = "HTTP"
SOA_TTL_S: Final = 15
"""Source: Cloud Map API, SOA, `TTL`."""
MAX_NAME_CHARS: Final = 253
"""Source: Cloud Map API, CreatePrivateDnsNamespace, `Name`."""
_HTTP_NAME: Final = re.compile(r"(?!arn:)[!-~]+")
"""Source: Cloud Map API, CreateHttpNamespace, `Name`."""
_CONDITIONS: Final = ("EQ", "IN", "BEGINS_WITH")
_FILTERS: Final = {
    "TYPE": _CONDITIONS,
    "NAME": _CONDITIONS,
    "HTTP_NAME": _CONDITIONS,
    "RESOURCE_OWNER": ("EQ",),
}
"""Source: Cloud Map API, NamespaceFilter."""
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


async def create_private_dns_namespace(plane: Plane, call: Call) -> Json:
    """Make a private zone of a VPC."""
    request = call.request
    name = request["Name"].lower().removesuffix(".")
    if len(name) > MAX_NAME_CHARS or not all(map(_LABEL.fullmatch, name.split("."))):
        raise invalid_input(f"{request['Name']} is not a name of DNS.")
    async with plane.store.write() as session:
        if await session.get(VpcRow, request["Vpc"]) is None:
            raise invalid_input(f"The VPC {request['Vpc']} does not exist.")
        properties = request.get("Properties", {}).get("DnsProperties", {})
        ttl_s = properties.get("SOA", {}).get("TTL", SOA_TTL_S)
        dns = {"HostedZoneId": f"Z{secrets.token_hex(10).upper()}", "SOA": {"TTL": ttl_s}}
        return await _create(session, request, name, DNS_PRIVATE, dns)


async def create_http_namespace(plane: Plane, call: Call) -> Json:
    """Make a namespace whose services are found by DiscoverInstances alone."""
    request = call.request
    name = request["Name"]
    if not name or not _HTTP_NAME.fullmatch(name):
        raise invalid_input("The name of a namespace can have printable ASCII characters only.")
    async with plane.store.write() as session:
        return await _create(session, request, name, HTTP, {})


async def _create(session: Session, request: Json, name: str, kind: str, dns: Json) -> Json:
    check_tags(request.get("Tags", []))
    vpc_id, creator = request.get("Vpc"), request.get("CreatorRequestId")
    chosen = select(Namespace).where(Namespace.name == name, Namespace.vpc_id.is_(None))
    if vpc_id is not None:
        chosen = select(Namespace).where(Namespace.name == name, Namespace.vpc_id == vpc_id)
    known = await session.scalar(chosen)
    if known is not None:
        of_it = {"NAMESPACE": known.id}
        repeated = await find_repeated(session, "CREATE_NAMESPACE", creator, of_it)
        if repeated is not None:
            return {"OperationId": repeated}
        raise ApiError(
            "NamespaceAlreadyExists",
            "The namespace that you're trying to create already exists.",
            CreatorRequestId=known.document.get("CreatorRequestId", ""),
            NamespaceId=known.id,
        )
    namespace = Namespace(
        id=new_cloud_map_id("ns"),
        name=name,
        kind=kind,
        vpc_id=vpc_id,
        document={
            "Properties": {"DnsProperties": dns, "HttpProperties": {"HttpName": name}},
            **{m: request[m] for m in ("Description", "CreatorRequestId") if m in request},
        },
        tags=request.get("Tags", []),
        created_at=round(time.time(), 3),
    )
    session.add(namespace)
    return await start_operation(session, "CREATE_NAMESPACE", {"NAMESPACE": namespace.id}, creator)


async def update_namespace(plane: Plane, call: Call) -> Json:
    """Change the description, or how long a missing name may be remembered."""
    change = call.request["Namespace"]
    async with plane.store.write() as session:
        namespace = await find_namespace(session, call.request["Id"])
        document = dict(namespace.document)
        if "Description" in change:
            document["Description"] = change["Description"]
        soa = change.get("Properties", {}).get("DnsProperties", {}).get("SOA")
        if soa is not None and namespace.kind == HTTP:
            raise invalid_input(f"The namespace {namespace.id} has no DNS records.")
        if soa is not None:
            properties = document["Properties"]
            document["Properties"] = {
                **properties,
                "DnsProperties": {**properties["DnsProperties"], "SOA": soa},
            }
        namespace.document = document
        return await start_operation(session, "UPDATE_NAMESPACE", {"NAMESPACE": namespace.id})


async def delete_namespace(plane: Plane, call: Call) -> Json:
    """Remove a namespace without services."""
    async with plane.store.write() as session:
        namespace = await find_namespace(session, call.request["Id"])
        if await _count_services(session, namespace.id):
            raise ApiError(
                "ResourceInUse",
                "The namespace can't be deleted because services are associated with it.",
            )
        await session.delete(namespace)
        return await start_operation(session, "DELETE_NAMESPACE", {"NAMESPACE": namespace.id})


async def get_namespace(plane: Plane, call: Call) -> Json:
    """Show one."""
    async with plane.store.read() as session:
        namespace = await find_namespace(session, call.request["Id"])
        return {"Namespace": await _render(plane, session, namespace)}


async def list_namespaces(plane: Plane, call: Call) -> Json:
    """List them by id."""
    page = parse_cloud_map_page(call.request)
    filters = check_filters(call.request, _FILTERS)
    async with plane.store.read() as session:
        found = (await session.scalars(select(Namespace).order_by(Namespace.id))).all()
        items = [
            (one.id, await _render(plane, session, one))
            for one in found
            if matches(filters, {"TYPE": one.kind, "NAME": one.name, "HTTP_NAME": one.name})
        ]
    for _, item in items:
        item.pop("CreatorRequestId", None)
    return render_cloud_map_page(page, items, "Namespaces")


async def find_namespace(session: Session, reference: str) -> Namespace:
    """Return the namespace that an id or an ARN means.

    Raises:
        ApiError: there is none.
    """
    found = await session.get(Namespace, last_part(reference))
    if found is None:
        raise ApiError("NamespaceNotFound", f"Namespace not found: {reference[:128]}")
    return found


async def _count_services(session: Session, namespace_id: str) -> int:
    chosen = select(func.count()).where(DiscoverableService.namespace_id == namespace_id)
    return await session.scalar(chosen) or 0


async def _render(plane: Plane, session: Session, namespace: Namespace) -> Json:
    return {
        **namespace.document,
        "Id": namespace.id,
        "Arn": namespace_arn(plane.arns, namespace.id),
        "Name": namespace.name,
        "Type": namespace.kind,
        "ServiceCount": await _count_services(session, namespace.id),
        "CreateDate": namespace.created_at,
        "ResourceOwner": plane.arns.account,
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "CreateHttpNamespace": create_http_namespace,
    "CreatePrivateDnsNamespace": create_private_dns_namespace,
    "DeleteNamespace": delete_namespace,
    "GetNamespace": get_namespace,
    "ListNamespaces": list_namespaces,
    "UpdateHttpNamespace": update_namespace,
    "UpdatePrivateDnsNamespace": update_namespace,
}
