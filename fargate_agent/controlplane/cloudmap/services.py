"""Services of Cloud Map: a name, and which records its instances have."""

import re
import time
from typing import Final

from sqlalchemy import func, select

from fargate_agent.controlplane.cloudmap.calls import (
    invalid_input,
    last_part,
    new_cloud_map_id,
    parse_cloud_map_page,
    registry_arn,
    render_cloud_map_page,
    start_operation,
)
from fargate_agent.controlplane.cloudmap.filters import check_filters, matches
from fargate_agent.controlplane.cloudmap.instances import count_instances
from fargate_agent.controlplane.cloudmap.namespaces import (
    DNS_PRIVATE,
    MAX_NAME_CHARS,
    find_namespace,
)
from fargate_agent.controlplane.cloudmap.tags import check_tags
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.announcements import NAMES
from fargate_agent.controlplane.state.cloudmap import (
    DeploymentRegistry,
    DiscoverableService,
    Namespace,
    RegisteredInstance,
)
from fargate_agent.controlplane.state.model import Deployment
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import announce
from fargate_agent.controlplane.validate import Json

MAX_INSTANCE_CHARS: Final = 63
"""Of an instance of a service with SRV records, whose id is a label of DNS. Source: RFC 1035."""
_SERVICE_NAME: Final = re.compile(
    r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*"
)
"""Source: Cloud Map API, `ServiceName`."""
_MAX_SERVICE_NAME_CHARS: Final = 127
_FILTERS: Final = {"NAMESPACE_ID": ("EQ", "IN"), "RESOURCE_OWNER": ("EQ",)}
"""Source: Cloud Map API, ServiceFilter."""


async def create_service(plane: Plane, call: Call) -> Json:
    """Make a service of a namespace."""
    request = call.request
    check_tags(request.get("Tags", []))
    async with plane.store.write() as session:
        namespace = await find_namespace(session, _named_namespace(request))
        name = request["Name"]
        document = _plan(request, namespace)
        known = await session.scalar(
            select(DiscoverableService).where(
                DiscoverableService.namespace_id == namespace.id,
                func.lower(DiscoverableService.name) == name.lower(),
            )
        )
        if known is not None:
            if not request.get("CreatorRequestId") or known.document != document:
                raise _already_exists(plane, known)
            return {"Service": await _render(plane, session, known)}  # the request is repeated
        service = DiscoverableService(
            id=new_cloud_map_id("srv"),
            namespace_id=namespace.id,
            name=name,
            document=document,
            tags=request.get("Tags", []),
            created_at=round(time.time(), 3),
        )
        session.add(service)
        announce(session, NAMES)
        await session.flush()
        return {"Service": await _render(plane, session, service)}


_KEPT: Final[tuple[str, ...]] = ("Description", "CreatorRequestId", "HealthCheckCustomConfig")


def _named_namespace(request: Json) -> str:
    """Return the namespace that a new service is for; it may be named in two places."""
    places = request, request.get("DnsConfig", {})
    named = [last_part(place["NamespaceId"]) for place in places if "NamespaceId" in place]
    if not named:
        raise invalid_input("NamespaceId is required.")
    if len(set(named)) > 1:
        raise invalid_input("NamespaceId and DnsConfig.NamespaceId are different namespaces.")
    return named[0]


def _plan(request: Json, namespace: Namespace) -> Json:
    """Return the members of the Service shape that are kept.

    Raises:
        ApiError: a service can't be made as it is asked for.
    """
    config = {m: value for m, value in request.get("DnsConfig", {}).items() if m != "NamespaceId"}
    _check_new(request, config, namespace)
    kept = {m: request[m] for m in _KEPT if m in request}
    if not config:
        return {"Type": "HTTP", **kept}
    dns = {"RoutingPolicy": "MULTIVALUE", **config, "NamespaceId": namespace.id}
    return {"Type": "DNS_HTTP", "DnsConfig": dns, **kept}


def _check_new(request: Json, config: Json, namespace: Namespace) -> None:
    """Return if a service can be made as it is asked for.

    Raises:
        ApiError: it can't.
    """
    name = request["Name"]
    if len(name) > _MAX_SERVICE_NAME_CHARS or not _SERVICE_NAME.fullmatch(name):
        raise invalid_input(f"{name[:128]} is not a name of a service.")
    if "HealthCheckConfig" in request:
        raise invalid_input(
            "HealthCheckConfig is for public DNS namespaces only; use HealthCheckCustomConfig."
        )
    if not config:
        return
    if namespace.kind != DNS_PRIVATE:
        raise invalid_input("A service of an HTTP namespace has no DNS records.")
    if request.get("Type") == "HTTP":
        raise invalid_input("A service of type HTTP has no DNS records.")
    _check_records(config, f"{name}.{namespace.name}")


def _check_records(config: Json, full_name: str) -> None:
    kinds = [record["Type"] for record in config["DnsRecords"]]
    if not kinds or len(kinds) > len(set(kinds)):
        raise invalid_input("DnsRecords must have at least one record, and each type once.")
    if "CNAME" in kinds:
        if len(kinds) > 1:
            raise invalid_input("CNAME can't be combined with other types of records.")
        if config.get("RoutingPolicy") != "WEIGHTED":
            raise invalid_input("CNAME requires the routing policy WEIGHTED.")
    room = MAX_NAME_CHARS - (MAX_INSTANCE_CHARS + 1 if "SRV" in kinds else 0)
    if len(full_name) > room:
        raise invalid_input(f"The name {full_name} is longer than {room} characters.")


def _already_exists(plane: Plane, known: DiscoverableService) -> ApiError:
    return ApiError(
        "ServiceAlreadyExists",
        "The service can't be created because a service with the same name already exists.",
        CreatorRequestId=known.document.get("CreatorRequestId", ""),
        ServiceId=known.id,
        ServiceArn=registry_arn(plane.arns, known.id),
    )


async def update_service(plane: Plane, call: Call) -> Json:
    """Change the description, or how long records may be remembered.

    Records that aren't named are taken away. Source: Cloud Map API, UpdateService.
    """
    change = call.request["Service"]
    if "HealthCheckConfig" in change:
        raise invalid_input("HealthCheckConfig is for public DNS namespaces only.")
    async with plane.store.write() as session:
        service = await find_registry(session, call.request["Id"])
        namespace = await session.get_one(Namespace, service.namespace_id)
        if namespace.kind != DNS_PRIVATE:
            raise invalid_input("A service of an HTTP namespace can't be changed.")
        document = {m: v for m, v in service.document.items() if m != "DnsConfig"}
        document["Type"] = "HTTP"
        if "Description" in change:
            document["Description"] = change["Description"]
        if "DnsConfig" in change:
            document["Type"] = "DNS_HTTP"
            document["DnsConfig"] = _change_records(
                service.document.get("DnsConfig", {"DnsRecords": []}),
                change["DnsConfig"]["DnsRecords"],
            )
        service.document = document
        return await start_operation(session, "UPDATE_SERVICE", {"SERVICE": service.id})


def _change_records(config: Json, records: list[Json]) -> Json:
    """Return a DNS configuration with other TTLs, and perhaps fewer records."""
    kinds = [record["Type"] for record in records]
    if not kinds or len(kinds) > len(set(kinds)):
        raise invalid_input("DnsRecords must have at least one record, and each type once.")
    if set(kinds) - {record["Type"] for record in config["DnsRecords"]}:
        raise invalid_input("A service gets no records of further types.")
    return {**config, "DnsRecords": records}


async def delete_service(plane: Plane, call: Call) -> Json:
    """Remove a service that has no instances, and that no service of ECS is registered with."""
    async with plane.store.write() as session:
        service = await find_registry(session, call.request["Id"])
        registered = select(RegisteredInstance.id).where(
            RegisteredInstance.service_id == service.id
        )
        used = (
            select(Deployment.id)
            .join(DeploymentRegistry, DeploymentRegistry.deployment_id == Deployment.id)
            .where(DeploymentRegistry.service_id == service.id, Deployment.status != "INACTIVE")
        )
        for chosen in (registered, used):
            if await session.scalar(chosen.limit(1)) is not None:
                raise ApiError(
                    "ResourceInUse",
                    "The service can't be deleted because it contains registered instances.",
                )
        await session.delete(service)
        announce(session, NAMES)
    return {}


async def get_service(plane: Plane, call: Call) -> Json:
    """Show one."""
    async with plane.store.read() as session:
        service = await find_registry(session, call.request["Id"])
        return {"Service": await _render(plane, session, service)}


async def list_services(plane: Plane, call: Call) -> Json:
    """List them by id."""
    page = parse_cloud_map_page(call.request)
    filters = check_filters(call.request, _FILTERS)
    for each in filters:
        each["Values"] = [last_part(value) for value in each["Values"]]
    chosen = select(DiscoverableService).order_by(DiscoverableService.id)
    async with plane.store.read() as session:
        found = (await session.scalars(chosen)).all()
        items = [
            (one.id, await _render(plane, session, one))
            for one in found
            if matches(filters, {"NAMESPACE_ID": one.namespace_id})
        ]
    for _, item in items:
        item.pop("CreatorRequestId", None)
        item.pop("NamespaceId", None)
    return render_cloud_map_page(page, items, "Services")


async def find_registry(session: Session, reference: str) -> DiscoverableService:
    """Return the service that an id or an ARN means.

    Raises:
        ApiError: there is none.
    """
    found = await session.get(DiscoverableService, last_part(reference))
    if found is None:
        raise ApiError("ServiceNotFound", f"Service not found: {reference[:128]}")
    return found


async def _render(plane: Plane, session: Session, service: DiscoverableService) -> Json:
    return {
        **service.document,
        "Id": service.id,
        "Arn": registry_arn(plane.arns, service.id),
        "Name": service.name,
        "NamespaceId": service.namespace_id,
        "InstanceCount": await count_instances(session, service.id),
        "CreateDate": service.created_at,
        "ResourceOwner": plane.arns.account,
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "CreateService": create_service,
    "DeleteService": delete_service,
    "GetService": get_service,
    "ListServices": list_services,
    "UpdateService": update_service,
}
