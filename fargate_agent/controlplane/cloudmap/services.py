"""Services of Cloud Map: a name, and which records its instances have."""

import re
import time
from typing import Final

from sqlalchemy import func, select

from fargate_agent.controlplane.cloudmap.calls import (
    filter_values,
    invalid_input,
    last_part,
    new_cloud_map_id,
    parse_cloud_map_page,
    registry_arn,
    render_cloud_map_page,
    start_operation,
)
from fargate_agent.controlplane.cloudmap.instances import count_instances
from fargate_agent.controlplane.cloudmap.namespaces import (
    DNS_PRIVATE,
    MAX_NAME_CHARS,
    find_namespace,
)
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


async def create_service(plane: Plane, call: Call) -> Json:
    """Make a service of a namespace."""
    request = call.request
    config = dict(request.get("DnsConfig", {}))
    async with plane.store.write() as session:
        reference = request.get("NamespaceId") or config.pop("NamespaceId", None)
        if not reference:
            raise invalid_input("NamespaceId is required.")
        namespace = await find_namespace(session, reference)
        name = request["Name"]
        _check_new(request, config, namespace)
        known = await session.scalar(
            select(DiscoverableService).where(
                DiscoverableService.namespace_id == namespace.id,
                func.lower(DiscoverableService.name) == name.lower(),
            )
        )
        if known is not None:
            raise _already_exists(plane, known)
        kind = "HTTP" if namespace.kind != DNS_PRIVATE else "DNS_HTTP"
        config.pop("NamespaceId", None)
        dns = {"RoutingPolicy": "MULTIVALUE", **config, "NamespaceId": namespace.id}
        service = DiscoverableService(
            id=new_cloud_map_id("srv"),
            namespace_id=namespace.id,
            name=name,
            document={
                "Type": request.get("Type", kind if config else "HTTP"),
                **({"DnsConfig": dns} if config else {}),
                **{m: request[m] for m in _KEPT if m in request},
            },
            tags=request.get("Tags", []),
            created_at=round(time.time(), 3),
        )
        session.add(service)
        announce(session, NAMES)
        await session.flush()
        return {"Service": await _render(plane, session, service)}


_KEPT: Final = ("Description", "CreatorRequestId", "HealthCheckCustomConfig")


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
    """Change the description, or how long records may be remembered."""
    change = call.request["Service"]
    if "HealthCheckConfig" in change:
        raise invalid_input("HealthCheckConfig is for public DNS namespaces only.")
    async with plane.store.write() as session:
        service = await find_registry(session, call.request["Id"])
        document = dict(service.document)
        if "Description" in change:
            document["Description"] = change["Description"]
        if "DnsConfig" in change:
            kinds = [one["Type"] for one in change["DnsConfig"]["DnsRecords"]]
            config = document.get("DnsConfig", {"DnsRecords": []})
            if sorted(kinds) != sorted(one["Type"] for one in config["DnsRecords"]):
                raise invalid_input("The types of a service's records can't be changed.")
            document["DnsConfig"] = {**config, "DnsRecords": change["DnsConfig"]["DnsRecords"]}
        service.document = document
        return await start_operation(session, "UPDATE_SERVICE", {"SERVICE": service.id})


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
    wanted = filter_values(call.request, ("NAMESPACE_ID",))
    chosen = select(DiscoverableService).order_by(DiscoverableService.id)
    for values in wanted.values():
        chosen = chosen.where(DiscoverableService.namespace_id.in_(map(last_part, values)))
    async with plane.store.read() as session:
        found = (await session.scalars(chosen)).all()
        items = [(one.id, await _render(plane, session, one)) for one in found]
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
