"""Instances of services of Cloud Map: registered by clients, listed, healthy or not, discovered."""

import re
import time
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from sqlalchemy import func, select

from fargate_agent.controlplane.cloudmap.calls import (
    invalid_input,
    parse_cloud_map_page,
    render_cloud_map_page,
    start_operation,
)
from fargate_agent.controlplane.cloudmap.instances import Instance, read_instances
from fargate_agent.controlplane.cloudmap.services import MAX_INSTANCE_CHARS, find_registry
from fargate_agent.controlplane.cloudmap.zones import is_label, is_name
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.announcements import NAMES
from fargate_agent.controlplane.state.cloudmap import (
    DiscoverableService,
    Namespace,
    RegisteredInstance,
)
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import announce
from fargate_agent.controlplane.validate import Json

MAX_INSTANCES: Final = 1000
"""Of one service. Source: AWS Cloud Map quotas."""
MAX_DISCOVERED: Final = 100
"""Source: Cloud Map API, DiscoverInstances, `MaxResults`."""
_MAX_PORT: Final = 65_535
_NEEDED: Final = {
    "A": "AWS_INSTANCE_IPV4",
    "AAAA": "AWS_INSTANCE_IPV6",
    "CNAME": "AWS_INSTANCE_CNAME",
    "SRV": "AWS_INSTANCE_PORT",
}
"""Which attribute a record is made of. Source: Cloud Map API, RegisterInstance, `Attributes`."""
_INIT_HEALTH: Final = "AWS_INIT_HEALTH_STATUS"
_MAX_ATTRIBUTES: Final = 30
_MAX_ATTRIBUTE_CHARS: Final = 5000
"""Source: Cloud Map API, RegisterInstance, `Attributes`."""
_ID: Final = re.compile(r"[0-9a-zA-Z_/:.@-]{1,64}")
_KEY: Final = re.compile(r"[!-~]+")
_VALUE: Final = re.compile(r"([!-~][ \t!-~]*)?")
"""Source: botocore, service model of Cloud Map: InstanceId, AttrKey, AttrValue."""


async def register_instance(plane: Plane, call: Call) -> Json:
    """Make an instance known, or replace what was known of it."""
    request = call.request
    instance_id, attributes = request["InstanceId"], dict(request["Attributes"])
    async with plane.store.write() as session:
        service = await find_registry(session, request["ServiceId"])
        _check_attributes(attributes)
        is_healthy = attributes.pop(_INIT_HEALTH, "HEALTHY") == "HEALTHY"
        _check_instance(service, instance_id, attributes)
        known = await session.get(RegisteredInstance, (service.id, instance_id))
        if known is None:
            others = await _read(plane, session, service)
            if any(one.id == instance_id for one in others):
                raise _managed(instance_id)
            if len(others) >= MAX_INSTANCES:
                raise ApiError(
                    "ResourceLimitExceeded", f"A service can have {MAX_INSTANCES} instances."
                )
            known = RegisteredInstance(
                service_id=service.id, id=instance_id, created_at=round(time.time(), 3)
            )
            session.add(known)
            known.is_healthy = is_healthy
        known.attributes = attributes
        return await start_operation(
            session, "REGISTER_INSTANCE", {"SERVICE": service.id, "INSTANCE": instance_id}
        )


def _check_attributes(attributes: Json) -> None:
    """Return if an instance can have these attributes, whatever the records of its service are.

    Raises:
        ApiError: there are too many, or one can't be.
    """
    if len(attributes) > _MAX_ATTRIBUTES:
        raise invalid_input(f"An instance can have {_MAX_ATTRIBUTES} attributes.")
    if sum(len(key) + len(value) for key, value in attributes.items()) > _MAX_ATTRIBUTE_CHARS:
        raise invalid_input(f"All attributes can have {_MAX_ATTRIBUTE_CHARS} characters.")
    for key, value in attributes.items():
        if not (_KEY.fullmatch(key) and _VALUE.fullmatch(value)):
            raise invalid_input(f"The attribute {key[:64]} has what isn't printable ASCII.")
        if key.startswith("AWS_") and key not in {_INIT_HEALTH, *_NEEDED.values()}:
            raise invalid_input(f"The attribute {key[:64]} is not supported here.")
    if attributes.get(_INIT_HEALTH, "HEALTHY") not in {"HEALTHY", "UNHEALTHY"}:
        raise invalid_input(f"{_INIT_HEALTH} must be HEALTHY or UNHEALTHY.")


def _check_instance(service: DiscoverableService, instance_id: str, attributes: Json) -> None:
    """Return if the records of a service can be made for an instance.

    Raises:
        ApiError: an attribute is absent, or isn't what it has to be.
    """
    if _ID.fullmatch(instance_id) is None:
        raise invalid_input(f"The instance id {instance_id[:64]} has what can't be in one.")
    kinds = _record_kinds(service)
    needed = {_NEEDED[kind] for kind in kinds}
    if "SRV" in kinds and not {"AWS_INSTANCE_IPV4", "AWS_INSTANCE_IPV6"} & attributes.keys():
        raise invalid_input("SRV needs AWS_INSTANCE_IPV4 or AWS_INSTANCE_IPV6.")
    if missing := sorted(needed - attributes.keys()):
        raise invalid_input(f"The attributes have no {', '.join(missing)}.")
    if "SRV" in kinds and not (len(instance_id) <= MAX_INSTANCE_CHARS and is_label(instance_id)):
        raise invalid_input(f"The instance id {instance_id} can't be a part of a name of DNS.")
    _check_values(attributes)


def _check_values(attributes: Json) -> None:
    for name, kind in (("AWS_INSTANCE_IPV4", IPv4Address), ("AWS_INSTANCE_IPV6", IPv6Address)):
        if name in attributes:
            text = attributes[name]
            try:
                kind(text)
            except ValueError:
                raise invalid_input(f"{name} is not an address: {text[:64]}") from None
            if "%" in text:
                raise invalid_input(f"{name} can't have a zone: {text[:64]}")
    port = attributes.get("AWS_INSTANCE_PORT", "1")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= _MAX_PORT):
        raise invalid_input(f"AWS_INSTANCE_PORT is not a port: {port[:64]}")
    if not is_name(attributes.get("AWS_INSTANCE_CNAME", "a")):
        raise invalid_input("AWS_INSTANCE_CNAME is not a name of DNS.")


def _record_kinds(service: DiscoverableService) -> set[str]:
    records = service.document.get("DnsConfig", {}).get("DnsRecords", [])
    return {record["Type"] for record in records}


async def deregister_instance(plane: Plane, call: Call) -> Json:
    """Forget an instance that a client has registered."""
    instance_id = call.request["InstanceId"]
    async with plane.store.write() as session:
        service = await find_registry(session, call.request["ServiceId"])
        known = await session.get(RegisteredInstance, (service.id, instance_id))
        if known is None:
            await _find_instance(plane, session, service, instance_id)
            raise _managed(instance_id)
        await session.delete(known)
        return await start_operation(
            session, "DEREGISTER_INSTANCE", {"SERVICE": service.id, "INSTANCE": instance_id}
        )


async def update_instance_custom_health_status(plane: Plane, call: Call) -> Json:
    """Say whether an instance that a client has registered is healthy."""
    instance_id = call.request["InstanceId"]
    async with plane.store.write() as session:
        service = await find_registry(session, call.request["ServiceId"])
        if not has_health(service):
            raise ApiError("CustomHealthNotFound", "The service has no HealthCheckCustomConfig.")
        known = await session.get(RegisteredInstance, (service.id, instance_id))
        if known is None:
            await _find_instance(plane, session, service, instance_id)
            raise _managed(instance_id)
        known.is_healthy = call.request["Status"] == "HEALTHY"
        announce(session, NAMES)
    return {}


async def get_instance(plane: Plane, call: Call) -> Json:
    """Show one."""
    async with plane.store.read() as session:
        service = await find_registry(session, call.request["ServiceId"])
        found = await _find_instance(plane, session, service, call.request["InstanceId"])
    shown = {"Id": found.id, "Attributes": dict(found.attributes)}
    return {"Instance": shown, "ResourceOwner": plane.arns.account}


async def list_instances(plane: Plane, call: Call) -> Json:
    """List those of a service by id."""
    page = parse_cloud_map_page(call.request)
    async with plane.store.read() as session:
        service = await find_registry(session, call.request["ServiceId"])
        found = await _read(plane, session, service)
    items = [(one.id, {"Id": one.id, "Attributes": dict(one.attributes)}) for one in found]
    answer = render_cloud_map_page(page, items, "Instances")
    return {**answer, "ResourceOwner": plane.arns.account}


async def get_instances_health_status(plane: Plane, call: Call) -> Json:
    """Say how healthy the instances of a service are."""
    page = parse_cloud_map_page(call.request)
    async with plane.store.read() as session:
        service = await find_registry(session, call.request["ServiceId"])
        found = {one.id: one for one in await _read(plane, session, service)}
    for instance_id in (wanted := call.request.get("Instances", sorted(found))):
        if instance_id not in found:
            raise _not_found(instance_id)
    counts = has_health(service)
    shown = [
        (one, {"Id": one, "Status": _health(service, found[one]) if counts else "UNKNOWN"})
        for one in sorted(set(wanted))
    ]
    answer = render_cloud_map_page(page, shown, "Status")
    answer["Status"] = {one["Id"]: one["Status"] for one in answer["Status"]}
    return answer


async def discover_instances(plane: Plane, call: Call) -> Json:
    """Return the instances of a service by names, those that have the wanted attributes.

    Source of what is returned if no health is asked for: Cloud Map developer guide, "AWS Cloud Map
    service health check configuration"; without a health check, all: Cloud Map API.
    """
    request = call.request
    async with plane.store.read() as session:
        service = await _find_by_name(session, request["NamespaceName"], request["ServiceName"])
        found = await _read(plane, session, service)
    if has_health(service):
        found = _choose_healthy(found, request.get("HealthStatus", "HEALTHY"))
    asked = request.get("QueryParameters", {}).items()
    found = [one for one in found if asked <= one.attributes.items()]
    optional = request.get("OptionalParameters", {}).items()
    chosen = [one for one in found if optional <= one.attributes.items()] or found
    return {
        "Instances": [
            {
                "InstanceId": one.id,
                "NamespaceName": request["NamespaceName"],
                "ServiceName": request["ServiceName"],
                "HealthStatus": _health(service, one),
                "Attributes": dict(one.attributes),
            }
            for one in chosen[: request.get("MaxResults", MAX_DISCOVERED)]
        ]
    }


def _choose_healthy(found: list[Instance], wanted: str) -> list[Instance]:
    healthy = [one for one in found if one.is_healthy]
    unhealthy = [one for one in found if not one.is_healthy]
    return {
        "ALL": found,
        "HEALTHY": healthy,
        "UNHEALTHY": unhealthy,
        "HEALTHY_OR_ELSE_ALL": healthy or found,
    }[wanted]


def has_health(service: DiscoverableService) -> bool:
    """Whether the health of a service's instances counts."""
    return "HealthCheckCustomConfig" in service.document


def _health(service: DiscoverableService, instance: Instance) -> str:
    return "HEALTHY" if instance.is_healthy or not has_health(service) else "UNHEALTHY"


async def _find_by_name(session: Session, namespace: str, name: str) -> DiscoverableService:
    chosen = select(Namespace.id).where(Namespace.name.in_({namespace, namespace.lower()}))
    namespaces = (await session.scalars(chosen.order_by(Namespace.created_at))).all()
    if not namespaces:
        raise ApiError("NamespaceNotFound", f"Namespace not found: {namespace[:128]}")
    services = select(DiscoverableService).where(
        DiscoverableService.namespace_id.in_(namespaces),
        func.lower(DiscoverableService.name) == name.lower(),
    )
    found = await session.scalar(services.order_by(DiscoverableService.created_at).limit(1))
    if found is None:
        raise ApiError("ServiceNotFound", f"Service not found: {name[:128]}")
    return found


async def _read(plane: Plane, session: Session, service: DiscoverableService) -> list[Instance]:
    found = await read_instances(session, plane.settings.region, [service.id])
    return found.get(service.id, [])


async def _find_instance(
    plane: Plane, session: Session, service: DiscoverableService, instance_id: str
) -> Instance:
    for one in await _read(plane, session, service):
        if one.id == instance_id:
            return one
    raise _not_found(instance_id)


def _not_found(instance_id: str) -> ApiError:
    return ApiError("InstanceNotFound", f"Instance not found: {instance_id[:128]}")


def _managed(instance_id: str) -> ApiError:
    return ApiError(
        "ResourceInUse", f"The instance {instance_id[:128]} is a task; Amazon ECS manages it."
    )


OPERATIONS: Final[dict[str, Operation]] = {
    "DeregisterInstance": deregister_instance,
    "DiscoverInstances": discover_instances,
    "GetInstance": get_instance,
    "GetInstancesHealthStatus": get_instances_health_status,
    "ListInstances": list_instances,
    "RegisterInstance": register_instance,
    "UpdateInstanceCustomHealthStatus": update_instance_custom_health_status,
}
