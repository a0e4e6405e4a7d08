"""Namespaces: made, shown, changed, deleted.

Source: Cloud Map API reference.
"""

import time
from typing import Final

from sqlalchemy import func, select

from fargate_agent.controlplane.cloudmap.domains import check_domain
from fargate_agent.controlplane.cloudmap.filters import OWNER, check_filters, matches
from fargate_agent.controlplane.cloudmap.lists import render_list
from fargate_agent.controlplane.cloudmap.operations import note_operation
from fargate_agent.controlplane.cloudmap.references import (
    find_namespace,
    namespace_arn,
    new_namespace_id,
    new_zone_id,
)
from fargate_agent.controlplane.cloudmap.refusals import in_use, invalid_input, refuse
from fargate_agent.controlplane.cloudmap.tags import check_tags
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.discovery import DiscoveryServiceRow, NamespaceRow
from fargate_agent.controlplane.state.networks import VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import note_names
from fargate_agent.controlplane.validate import Json

PRIVATE: Final = "DNS_PRIVATE"
HTTP: Final = "HTTP"
DEFAULT_SOA_TTL_S: Final = 15
"""Source: Cloud Map developer guide, "Creating an AWS Cloud Map namespace"."""

_NAME_CHARS: Final = frozenset(map(chr, range(ord("!"), ord("~") + 1)))
_CONDITIONS: Final = ("EQ", "IN", "BEGINS_WITH")
_FILTERS: Final = {
    "TYPE": _CONDITIONS,
    "NAME": _CONDITIONS,
    "HTTP_NAME": _CONDITIONS,
    "RESOURCE_OWNER": ("EQ",),
}


async def create_private_dns_namespace(plane: Plane, call: Call) -> Json:
    """Make a namespace whose names the tasks of a VPC can resolve."""
    request = call.request
    name = request["Name"].lower()
    check_domain(name, "The name of the namespace")
    ttl_s = request.get("Properties", {}).get("DnsProperties", {}).get("SOA", {}).get("TTL")
    properties = {
        "DnsProperties": {
            "HostedZoneId": new_zone_id(),
            "SOA": {"TTL": DEFAULT_SOA_TTL_S if ttl_s is None else ttl_s},
        },
        "HttpProperties": {"HttpName": name},
    }
    return await _create(plane, request, (name, PRIVATE, request["Vpc"]), properties)


async def create_http_namespace(plane: Plane, call: Call) -> Json:
    """Make a namespace whose instances only DiscoverInstances finds."""
    name = call.request["Name"]
    if not name or set(name) - _NAME_CHARS or name.startswith("arn:"):
        raise invalid_input("The name of a namespace can have printable ASCII characters only.")
    properties = {"HttpProperties": {"HttpName": name}}
    return await _create(plane, call.request, (name, HTTP, None), properties)


async def create_public_dns_namespace(plane: Plane, call: Call) -> Json:  # noqa: RUF029 - an operation
    """Refuse: there is no public DNS here."""
    del plane, call
    raise invalid_input(
        "Public DNS namespaces are not supported here: use CreatePrivateDnsNamespace."
    )


async def _create(
    plane: Plane, request: Json, what: tuple[str, str, str | None], properties: Json
) -> Json:
    """Make a namespace of a name and kind in a VPC; a repeated request has the same answer."""
    name, kind, vpc_id = what
    check_tags(request.get("Tags", []))
    async with plane.store.write() as session:
        known = await session.scalar(select(NamespaceRow).where(NamespaceRow.name == name))
        if known is not None:
            return _find_replay(known, request, what)
        if vpc_id is not None and await session.get(VpcRow, vpc_id) is None:
            raise invalid_input(f"The VPC {vpc_id} does not exist.")
        id_ = new_namespace_id()
        operation_id = await note_operation(session, "CREATE_NAMESPACE", NAMESPACE=id_)
        session.add(
            NamespaceRow(
                id=id_,
                name=name,
                kind=kind,
                vpc_id=vpc_id,
                creator_request_id=request.get("CreatorRequestId"),
                operation_id=operation_id,
                document={"Description": request.get("Description", ""), "Properties": properties},
                tags=request.get("Tags", []),
                version=1,
                created_at=round(time.time(), 3),
            )
        )
        note_names(session)
    return {"OperationId": operation_id}


def _find_replay(known: NamespaceRow, request: Json, what: tuple[str, str, str | None]) -> Json:
    """Return the answer to a request that was answered before.

    Raises:
        ApiError: it is another one.
    """
    token = request.get("CreatorRequestId")
    if token and token == known.creator_request_id and what[1:] == (known.kind, known.vpc_id):
        return {"OperationId": known.operation_id}
    raise refuse(
        "NamespaceAlreadyExists",
        f"There is a namespace with the name {known.name} already.",
        NamespaceId=known.id,
        CreatorRequestId=known.creator_request_id,
    )


async def get_namespace(plane: Plane, call: Call) -> Json:
    """Describe a namespace."""
    async with plane.store.read() as session:
        row = await find_namespace(plane.arns, session, call.request["Id"])
        counts = await _count_services(session)
    shown = _render(plane.arns, row, counts)
    if row.creator_request_id is not None:
        shown["CreatorRequestId"] = row.creator_request_id
    return {"Namespace": shown}


async def list_namespaces(plane: Plane, call: Call) -> Json:
    """List namespaces in the order of their names."""
    filters = call.request.get("Filters", [])
    check_filters(filters, _FILTERS)
    async with plane.store.read() as session:
        rows = (await session.scalars(select(NamespaceRow))).all()
        counts = await _count_services(session)
    shown = {
        row.name: _render(plane.arns, row, counts)
        for row in rows
        if matches(filters, {"TYPE": row.kind, "NAME": row.name, "HTTP_NAME": row.name, **OWNER})
    }
    return render_list(call.request, shown, "Namespaces")


async def update_namespace(plane: Plane, call: Call) -> Json:
    """Change the description of a namespace, and the TTL of its SOA record."""
    change = call.request["Namespace"]
    async with plane.store.write() as session:
        row = await find_namespace(plane.arns, session, call.request["Id"])
        document = {**row.document}
        if "Description" in change:
            document["Description"] = change["Description"]
        soa = change.get("Properties", {}).get("DnsProperties", {}).get("SOA")
        if soa is not None:
            if row.kind != PRIVATE:
                raise invalid_input(f"The namespace {row.id} has no DNS properties.")
            properties = document["Properties"]
            dns = {**properties["DnsProperties"], "SOA": soa}
            document["Properties"] = {**properties, "DnsProperties": dns}
        row.document = document
        operation_id = await note_operation(session, "UPDATE_NAMESPACE", NAMESPACE=row.id)
    return {"OperationId": operation_id}


async def delete_namespace(plane: Plane, call: Call) -> Json:
    """Delete a namespace without services."""
    async with plane.store.write() as session:
        row = await find_namespace(plane.arns, session, call.request["Id"])
        services = select(DiscoveryServiceRow.id).where(DiscoveryServiceRow.namespace_id == row.id)
        if await session.scalar(services.limit(1)) is not None:
            raise in_use(f"The namespace {row.id} has services: delete them first.")
        operation_id = await note_operation(session, "DELETE_NAMESPACE", NAMESPACE=row.id)
        await session.delete(row)
        note_names(session)
    return {"OperationId": operation_id}


async def _count_services(session: Session) -> dict[str, int]:
    counted = select(DiscoveryServiceRow.namespace_id, func.count()).group_by(
        DiscoveryServiceRow.namespace_id
    )
    return dict((await session.execute(counted)).all())


def _render(arns: Arns, row: NamespaceRow, counts: dict[str, int]) -> Json:
    return {
        **row.document,
        "Id": row.id,
        "Arn": namespace_arn(arns, row.id),
        "ResourceOwner": arns.account,
        "Name": row.name,
        "Type": row.kind,
        "ServiceCount": counts.get(row.id, 0),
        "CreateDate": row.created_at,
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "CreateHttpNamespace": create_http_namespace,
    "CreatePrivateDnsNamespace": create_private_dns_namespace,
    "CreatePublicDnsNamespace": create_public_dns_namespace,
    "DeleteNamespace": delete_namespace,
    "GetNamespace": get_namespace,
    "ListNamespaces": list_namespaces,
    "UpdateHttpNamespace": update_namespace,
    "UpdatePrivateDnsNamespace": update_namespace,
}
