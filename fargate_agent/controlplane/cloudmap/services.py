"""Services of Cloud Map: made, shown, changed, deleted.

Source: Cloud Map API reference.
"""

import re
import time
from collections import Counter
from typing import Final

from sqlalchemy import delete, select

from fargate_agent.controlplane.cloudmap.domains import TASK_ID_CHARS, check_domain
from fargate_agent.controlplane.cloudmap.filters import OWNER, check_filters, matches
from fargate_agent.controlplane.cloudmap.lists import render_list
from fargate_agent.controlplane.cloudmap.members import has_instances, read_instances
from fargate_agent.controlplane.cloudmap.namespaces import HTTP, PRIVATE
from fargate_agent.controlplane.cloudmap.operations import note_operation
from fargate_agent.controlplane.cloudmap.references import (
    find_namespace,
    find_service,
    new_service_id,
    service_arn,
    service_key,
)
from fargate_agent.controlplane.cloudmap.refusals import in_use, invalid_input, refuse
from fargate_agent.controlplane.cloudmap.tags import check_tags
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.discovery import (
    DiscoveryServiceRow,
    InstanceRow,
    NamespaceRow,
)
from fargate_agent.controlplane.state.store import note_names
from fargate_agent.controlplane.validate import Json

MAX_NAME_CHARS: Final = 127
"""Source: Cloud Map API reference, CreateService.Name."""

_HTTP_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FILTERS: Final = {"NAMESPACE_ID": ("EQ", "IN"), "RESOURCE_OWNER": ("EQ",)}


async def create_service(plane: Plane, call: Call) -> Json:
    """Make a service; a request that is repeated is answered with what it has made."""
    request = call.request
    check_tags(request.get("Tags", []))
    async with plane.store.write() as session:
        namespace = await find_namespace(plane.arns, session, _namespace_id(request))
        document = _plan(request, namespace)
        key = service_key(namespace, request["Name"])
        known = await session.scalar(
            select(DiscoveryServiceRow).where(
                DiscoveryServiceRow.namespace_id == namespace.id, DiscoveryServiceRow.key == key
            )
        )
        if known is not None:
            _check_same(plane.arns, known, request, document)
            count = len(await read_instances(session, [known.id]))
            return {"Service": _render(plane.arns, known, count)}
        row = DiscoveryServiceRow(
            id=new_service_id(),
            namespace_id=namespace.id,
            name=request["Name"],
            key=key,
            creator_request_id=request.get("CreatorRequestId"),
            document=document,
            tags=request.get("Tags", []),
            created_at=round(time.time(), 3),
        )
        session.add(row)
        note_names(session)
    return {"Service": _render(plane.arns, row, 0)}


def _namespace_id(request: Json) -> str:
    """Return the namespace that a new service is for; it may be named in two places."""
    named = [
        place["NamespaceId"]
        for place in (request, request.get("DnsConfig", {}))
        if "NamespaceId" in place
    ]
    if not named:
        raise invalid_input("NamespaceId is missing.")
    if len(set(named)) > 1:
        raise invalid_input("NamespaceId and DnsConfig.NamespaceId are different namespaces.")
    return str(named[0])


def _plan(request: Json, namespace: NamespaceRow) -> Json:
    """Return the members of the Service shape that are kept.

    Raises:
        ApiError: the namespace can't have such a service.
    """
    if "HealthCheckConfig" in request:
        raise invalid_input(
            "HealthCheckConfig is for public DNS namespaces: use HealthCheckCustomConfig."
        )
    document: Json = {"Description": request.get("Description", "")}
    if "HealthCheckCustomConfig" in request:
        document["HealthCheckCustomConfig"] = {"FailureThreshold": 1}
    if "DnsConfig" not in request:
        _check_http_name(request["Name"])
        return document
    if namespace.kind != PRIVATE or request.get("Type") == HTTP:
        raise invalid_input("DnsConfig is for services of DNS namespaces only.")
    config = request["DnsConfig"]
    routing = config.get("RoutingPolicy", "MULTIVALUE")
    check_records(config["DnsRecords"], routing)
    types = [record["Type"] for record in config["DnsRecords"]]
    check_names(request["Name"], namespace.name, types)
    document["DnsConfig"] = {
        "NamespaceId": namespace.id,
        "RoutingPolicy": routing,
        "DnsRecords": config["DnsRecords"],
    }
    return document


def check_records(records: list[Json], routing: str) -> None:
    """Return if the instances of a service can have these records.

    Raises:
        ApiError: there is none, one twice, or one that others or the policy exclude.
    """
    types = [record["Type"] for record in records]
    if not types or len(set(types)) < len(types):
        raise invalid_input("DnsRecords must have one or more records, each of another type.")
    if "CNAME" in types and len(types) > 1:
        raise invalid_input("A CNAME record can't be together with records of other types.")
    if "CNAME" in types and routing != "WEIGHTED":
        raise invalid_input("A CNAME record needs the RoutingPolicy WEIGHTED.")


def check_names(name: str, namespace: str, types: list[str]) -> None:
    """Return if the names of a service, and of its tasks, can be in the DNS.

    Raises:
        ApiError: one can't.
    """
    if len(name) > MAX_NAME_CHARS:
        raise invalid_input(f"The name of a service can have at most {MAX_NAME_CHARS} characters.")
    check_domain(f"{name}.{namespace}", "The name of the service in its namespace")
    if "SRV" in types:
        instance = "0" * TASK_ID_CHARS
        check_domain(
            f"{instance}.{name}.{namespace}",
            f"The name of an instance, {TASK_ID_CHARS} characters before that of the service,",
        )


def _check_http_name(name: str) -> None:
    if len(name) > MAX_NAME_CHARS or _HTTP_NAME.fullmatch(name) is None:
        raise invalid_input(
            f"The name of a service must have 1 to {MAX_NAME_CHARS} letters, digits, '_', '-' and"
            " '.'."
        )


def _check_same(arns: Arns, known: DiscoveryServiceRow, request: Json, document: Json) -> None:
    """Return if a service is there because of the same request.

    Raises:
        ApiError: it is another one.
    """
    token = request.get("CreatorRequestId")
    if token and token == known.creator_request_id and document == known.document:
        return
    raise refuse(
        "ServiceAlreadyExists",
        f"There is a service with the name {known.name} already.",
        ServiceId=known.id,
        ServiceArn=service_arn(arns, known.id),
        CreatorRequestId=known.creator_request_id,
    )


async def get_service(plane: Plane, call: Call) -> Json:
    """Describe a service."""
    async with plane.store.read() as session:
        row = await find_service(plane.arns, session, call.request["Id"])
        count = len(await read_instances(session, [row.id]))
    return {"Service": _render(plane.arns, row, count)}


async def list_services(plane: Plane, call: Call) -> Json:
    """List services in the order of their ids."""
    filters = call.request.get("Filters", [])
    check_filters(filters, _FILTERS)
    async with plane.store.read() as session:
        rows = (await session.scalars(select(DiscoveryServiceRow))).all()
        counts = Counter(instance.service_id for instance in await read_instances(session))
    shown = {
        row.id: _render_summary(plane.arns, row, counts[row.id])
        for row in rows
        if matches(filters, {"NAMESPACE_ID": row.namespace_id, **OWNER})
    }
    return render_list(call.request, shown, "Services")


async def update_service(plane: Plane, call: Call) -> Json:
    """Change the description of a service and the TTLs of its records.

    Records that aren't named are taken away, and with them the names of the instances.
    """
    change = call.request["Service"]
    if "HealthCheckConfig" in change:
        raise invalid_input("HealthCheckConfig is for public DNS namespaces.")
    async with plane.store.write() as session:
        row = await find_service(plane.arns, session, call.request["Id"])
        namespace = await session.get_one(NamespaceRow, row.namespace_id)
        if namespace.kind == HTTP:
            raise invalid_input("Services of HTTP namespaces can't be changed.")
        document = {**row.document}
        config = document.pop("DnsConfig", None)
        if "DnsConfig" in change:
            document["DnsConfig"] = _change_records(config, change["DnsConfig"]["DnsRecords"])
        if "Description" in change:
            document["Description"] = change["Description"]
        row.document = document
        operation_id = await note_operation(session, "UPDATE_SERVICE", SERVICE=row.id)
        note_names(session)
    return {"OperationId": operation_id}


def _change_records(config: Json | None, records: list[Json]) -> Json:
    """Return the DNS configuration of a service with other TTLs, and perhaps fewer records."""
    if config is None:
        raise invalid_input("The service has no DNS records, and none can be added.")
    check_records(records, config["RoutingPolicy"])
    known = {record["Type"] for record in config["DnsRecords"]}
    if added := {record["Type"] for record in records} - known:
        raise invalid_input(f"A record can't be added to a service: {', '.join(sorted(added))}.")
    return {**config, "DnsRecords": records}


async def delete_service(plane: Plane, call: Call) -> Json:
    """Delete a service without instances."""
    async with plane.store.write() as session:
        row = await find_service(plane.arns, session, call.request["Id"])
        if await has_instances(session, row.id):
            raise in_use(f"The service {row.id} has instances: deregister them first.")
        # what is left are tasks that end
        await session.execute(delete(InstanceRow).where(InstanceRow.service_id == row.id))
        await session.delete(row)
        note_names(session)
    return {}


def _render(arns: Arns, row: DiscoveryServiceRow, count: int) -> Json:
    shown = {
        **_render_summary(arns, row, count),
        "NamespaceId": row.namespace_id,
        "ResourceOwner": arns.account,
    }
    if row.creator_request_id is not None:
        shown["CreatorRequestId"] = row.creator_request_id
    return shown


def _render_summary(arns: Arns, row: DiscoveryServiceRow, count: int) -> Json:
    return {
        **row.document,
        "Id": row.id,
        "Arn": service_arn(arns, row.id),
        "Name": row.name,
        "Type": "DNS_HTTP" if "DnsConfig" in row.document else HTTP,
        "InstanceCount": count,
        "CreateDate": row.created_at,
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "CreateService": create_service,
    "DeleteService": delete_service,
    "GetService": get_service,
    "ListServices": list_services,
    "UpdateService": update_service,
}
