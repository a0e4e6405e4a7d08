"""Instances: registered by a call, shown, found, taken away. Those of ECS register themselves.

Source: Cloud Map API reference.
"""

import re
from collections.abc import Callable
from typing import Final

from fargate_agent.controlplane.cloudmap.domains import (
    check_domain,
    check_ipv4,
    check_ipv6,
    check_port,
)
from fargate_agent.controlplane.cloudmap.lists import render_list, render_map
from fargate_agent.controlplane.cloudmap.members import (
    HEALTHY,
    UNHEALTHY,
    Instance,
    find_instance,
    read_instances,
)
from fargate_agent.controlplane.cloudmap.operations import note_operation
from fargate_agent.controlplane.cloudmap.references import find_service
from fargate_agent.controlplane.cloudmap.refusals import in_use, instance_not_found, invalid_input
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.discovery import (
    DiscoveryServiceRow,
    InstanceRow,
    NamespaceRow,
)
from fargate_agent.controlplane.state.store import note_names
from fargate_agent.controlplane.validate import Json

MAX_ATTRIBUTES: Final = 30
MAX_ATTRIBUTE_CHARS: Final = 5000
"""Of all keys and values of an instance. Source: Cloud Map API reference, RegisterInstance."""
MAX_INSTANCES: Final = 1000
"""Of a service. Source: Cloud Map quotas."""

IPV4: Final = "AWS_INSTANCE_IPV4"
IPV6: Final = "AWS_INSTANCE_IPV6"
PORT: Final = "AWS_INSTANCE_PORT"
CNAME: Final = "AWS_INSTANCE_CNAME"
INIT_HEALTH: Final = "AWS_INIT_HEALTH_STATUS"

_CHECKS: Final[dict[str, Callable[[str, str], None]]] = {
    IPV4: check_ipv4,
    IPV6: check_ipv6,
    PORT: check_port,
    CNAME: check_domain,
}
_OF_RECORDS: Final = {"A": IPV4, "AAAA": IPV6, "SRV": PORT, "CNAME": CNAME}
_ID: Final = re.compile(r"[0-9a-zA-Z_/:.@-]{1,64}")
_KEY: Final = re.compile(r"[!-~]{1,255}")
_VALUE: Final = re.compile(r"([!-~][ \t!-~]*)?")


async def register_instance(plane: Plane, call: Call) -> Json:
    """Add an instance to a service, or give one that is there other attributes."""
    request = call.request
    id_, attributes = request["InstanceId"], request["Attributes"]
    async with plane.store.write() as session:
        service = await find_service(plane.arns, session, request["ServiceId"])
        namespace = await session.get_one(NamespaceRow, service.namespace_id)
        check_instance(service, namespace, id_, attributes)
        known = await session.get(InstanceRow, (service.id, id_))
        if known is not None and known.task_id is not None:
            raise in_use(f"The instance {id_} is a task of ECS, which keeps its attributes.")
        count = len(await read_instances(session, [service.id]))
        if known is None and count >= MAX_INSTANCES:
            raise ApiError(
                "ResourceLimitExceeded", f"A service can have at most {MAX_INSTANCES} instances."
            )
        kept = {key: value for key, value in attributes.items() if key != INIT_HEALTH}
        await session.merge(
            InstanceRow(
                service_id=service.id,
                id=id_,
                task_id=None,
                creator_request_id=request.get("CreatorRequestId"),
                health=attributes.get(INIT_HEALTH, HEALTHY),
                attributes=kept,
            )
        )
        operation_id = await note_operation(
            session, "REGISTER_INSTANCE", INSTANCE=id_, SERVICE=service.id
        )
        note_names(session)
    return {"OperationId": operation_id}


def check_instance(
    service: DiscoveryServiceRow, namespace: NamespaceRow, id_: str, attributes: dict[str, str]
) -> None:
    """Return if a service can have an instance with these attributes.

    Raises:
        ApiError: it can't.
    """
    if _ID.fullmatch(id_) is None:
        raise invalid_input("InstanceId must match ^[0-9a-zA-Z_/:.@-]{1,64}$")
    _check_attributes(attributes)
    has_health = "HealthCheckCustomConfig" in service.document
    if INIT_HEALTH in attributes and not has_health:
        raise invalid_input(f"{INIT_HEALTH} is for services with HealthCheckCustomConfig.")
    if attributes.get(INIT_HEALTH, HEALTHY) not in {HEALTHY, UNHEALTHY}:
        raise invalid_input(f"{INIT_HEALTH} must be {HEALTHY} or {UNHEALTHY}.")
    types = record_types(service)
    for type_ in types:
        if _OF_RECORDS[type_] not in attributes:
            raise invalid_input(
                f"The service has {type_} records: {_OF_RECORDS[type_]} is missing."
            )
    if "SRV" in types:
        if not {IPV4, IPV6} & attributes.keys():
            raise invalid_input(f"The service has SRV records: {IPV4} or {IPV6} is missing.")
        check_domain(f"{id_}.{service.name}.{namespace.name}", "The name of the instance")


def record_types(service: DiscoveryServiceRow) -> list[str]:
    """Return the types of the records that the instances of a service have."""
    records = service.document.get("DnsConfig", {}).get("DnsRecords", [])
    return [record["Type"] for record in records]


def _check_attributes(attributes: dict[str, str]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise invalid_input(f"An instance can have at most {MAX_ATTRIBUTES} attributes.")
    if sum(len(key) + len(value) for key, value in attributes.items()) > MAX_ATTRIBUTE_CHARS:
        raise invalid_input(
            f"The attributes of an instance can have at most {MAX_ATTRIBUTE_CHARS} characters."
        )
    for key, value in attributes.items():
        if _KEY.fullmatch(key) is None or _VALUE.fullmatch(value) is None:
            raise invalid_input(
                f"The attribute '{key[:64]}' has a character that isn't printable ASCII."
            )
        if key in _CHECKS:
            _CHECKS[key](value, key)
        elif key.startswith("AWS_") and key != INIT_HEALTH:
            raise invalid_input(f"The attribute {key[:64]} is not supported here.")


async def deregister_instance(plane: Plane, call: Call) -> Json:
    """Take an instance away; a task goes on, and is no instance any more."""
    request = call.request
    async with plane.store.write() as session:
        service = await find_service(plane.arns, session, request["ServiceId"])
        row = await session.get(InstanceRow, (service.id, request["InstanceId"]))
        if row is None:
            raise instance_not_found(request["InstanceId"], service.id)
        await session.delete(row)
        operation_id = await note_operation(
            session, "DEREGISTER_INSTANCE", INSTANCE=row.id, SERVICE=service.id
        )
        note_names(session)
    return {"OperationId": operation_id}


async def get_instance(plane: Plane, call: Call) -> Json:
    """Describe an instance."""
    request = call.request
    async with plane.store.read() as session:
        service = await find_service(plane.arns, session, request["ServiceId"])
        found = await find_instance(session, service.id, request["InstanceId"])
    if found is None:
        raise instance_not_found(request["InstanceId"], service.id)
    shown: Json = {"Id": found.id, "Attributes": found.attributes}
    if found.creator_request_id is not None:
        shown["CreatorRequestId"] = found.creator_request_id
    return {"Instance": shown, "ResourceOwner": plane.arns.account}


async def list_instances(plane: Plane, call: Call) -> Json:
    """List the instances of a service, healthy or not."""
    async with plane.store.read() as session:
        service = await find_service(plane.arns, session, call.request["ServiceId"])
        found = await read_instances(session, [service.id])
    shown = {one.id: {"Id": one.id, "Attributes": one.attributes} for one in found}
    return {
        **render_list(call.request, shown, "Instances"),
        "ResourceOwner": plane.arns.account,
    }


async def get_instances_health_status(plane: Plane, call: Call) -> Json:
    """Say how healthy instances are; of a service without a health check nobody knows."""
    request = call.request
    async with plane.store.read() as session:
        service = await find_service(plane.arns, session, request["ServiceId"])
        found = {one.id: one for one in await read_instances(session, [service.id])}
    wanted = request.get("Instances", [*found])
    for id_ in wanted:
        if id_ not in found:
            raise instance_not_found(id_, service.id)
    shown = {id_: _name_health(service, found[id_]) for id_ in wanted}
    return render_map(request, shown, "Status")


def _name_health(service: DiscoveryServiceRow, instance: Instance) -> str:
    if "HealthCheckCustomConfig" not in service.document:
        return "UNKNOWN"
    return HEALTHY if instance.is_healthy else UNHEALTHY


async def update_instance_custom_health_status(plane: Plane, call: Call) -> Json:
    """Say how healthy an instance is; a task is unhealthy too if ECS finds it so."""
    request = call.request
    async with plane.store.write() as session:
        service = await find_service(plane.arns, session, request["ServiceId"])
        if "HealthCheckCustomConfig" not in service.document:
            raise ApiError(
                "CustomHealthNotFound", f"The service {service.id} has no HealthCheckCustomConfig."
            )
        if await find_instance(session, service.id, request["InstanceId"]) is None:
            raise instance_not_found(request["InstanceId"], service.id)
        row = await session.get_one(InstanceRow, (service.id, request["InstanceId"]))
        row.health = request["Status"]
        note_names(session)
    return {}


OPERATIONS: Final[dict[str, Operation]] = {
    "DeregisterInstance": deregister_instance,
    "GetInstance": get_instance,
    "GetInstancesHealthStatus": get_instances_health_status,
    "ListInstances": list_instances,
    "RegisterInstance": register_instance,
    "UpdateInstanceCustomHealthStatus": update_instance_custom_health_status,
}
