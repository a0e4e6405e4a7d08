"""Container instances: agents as they register."""

import time
from typing import Final

from sqlalchemy import func, select

from fargate_agent.controlplane.agents.connections import expect
from fargate_agent.controlplane.agents.leases import is_running, shown_status
from fargate_agent.controlplane.agents.served import find_served
from fargate_agent.controlplane.clusters.clusters import find_cluster
from fargate_agent.controlplane.errors import ApiError, client_error, invalid_parameter
from fargate_agent.controlplane.names import Arns, new_id
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.model import LIVE, ContainerInstance, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tags import check_tags
from fargate_agent.controlplane.validate import Json, check_length

MAX_ATTRIBUTE_CHARS: Final = 128
"""Source: ECS API, Attribute.name and Attribute.value."""


async def register_container_instance(plane: Plane, call: Call) -> Json:
    """Register an agent; one that names its `containerInstanceArn` is registered again.

    An ARN that this control plane has forgotten is taken up again: the manifest that follows tells
    the agent which of its tasks are still wanted. One of another cluster moves to this one, with
    the tasks that it has. Tags are added to those that operators have put.
    """
    request = call.request
    check_tags(request.get("tags", []))
    document: Json = {
        member: request[member]
        for member in ("versionInfo", "attributes", "totalResources")
        if member in request
    }
    _check_document(document)
    resources = {
        resource.get("name"): resource.get("integerValue")
        for resource in request.get("totalResources", [])
    }
    clusters = find_served(request)
    async with plane.store.write() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        arn = request.get("containerInstanceArn")
        instance_id = _parse_known(plane.arns, arn) if arn else new_id()
        instance = await session.get(ContainerInstance, instance_id)
        if instance is not None and instance.status == "INACTIVE":
            instance_id, instance = new_id(), None  # it was retired, and the agent goes on
        if instance is None:
            instance = ContainerInstance(
                id=instance_id,
                cluster=cluster,
                status="ACTIVE",
                tags=[],
                reserved_tasks=0,
                reserved_cpu_units=0,
                reserved_memory_mib=0,
                reserved_storage_gib=0,
                connected_until=0.0,
                access_key_id=call.caller.access_key_id,
                registered_at=round(time.time(), 3),
            )
            session.add(instance)
        check_owner(instance, call.caller.access_key_id)
        instance.cluster, instance.clusters = cluster, clusters
        instance.cpu_units = resources.get("CPU")
        instance.memory_mib = resources.get("MEMORY")
        instance.storage_gib = resources.get("STORAGE")
        instance.document = document
        tags = {tag["key"]: tag for tag in [*instance.tags, *request.get("tags", [])]}
        instance.tags = list(tags.values())
        await session.flush()
        expect(session, instance)
        shown = await render_instance(plane.arns, session, instance)
    return {"containerInstance": shown}


def _parse_known(arns: Arns, arn: str) -> str:
    """Return the id of an instance that was registered, be it in another cluster than now."""
    _, _, path = arn.partition(":container-instance/")
    return arns.parse_container_instance(arn, path.rpartition("/")[0])


def _check_document(document: Json) -> None:
    """Return if an agent says of itself what can be.

    Raises:
        ApiError: a string is too long, or there is less of a resource than nothing.
    """
    for member, text in document.get("versionInfo", {}).items():
        check_length(text, member)
    for attribute in document.get("attributes", []):
        check_length(attribute["name"], "The name of an attribute", MAX_ATTRIBUTE_CHARS)
        check_length(attribute.get("value", ""), "The value of an attribute", MAX_ATTRIBUTE_CHARS)
        check_length(attribute.get("targetId", ""), "targetId")
    for resource in document.get("totalResources", []):
        for text in (resource.get("name", ""), resource.get("type", "")):
            check_length(text, "The name or type of a resource")
        for text in resource.get("stringSetValue", []):
            check_length(text, "A member of a stringSetValue")
        for member in ("integerValue", "longValue", "doubleValue"):
            if resource.get(member, 0) < 0:
                raise invalid_parameter(f"{member} can not be negative.")


async def discover_poll_endpoint(plane: Plane, call: Call) -> Json:
    """Say where the agent's websocket is: here, by the name that the agent knows."""
    if arn := call.request.get("containerInstance"):
        async with plane.store.read() as session:
            cluster = await find_cluster(plane.arns, plane.settings, session, call.request)
            await find_own_instance(plane.arns, session, arn, cluster, call.caller.access_key_id)
    endpoint = f"http://{call.host}/"
    return {"endpoint": endpoint, "telemetryEndpoint": endpoint}


async def find_own_instance(
    arns: Arns, session: Session, arn: str, cluster: str, access_key_id: str
) -> ContainerInstance:
    """Return the container instance that an agent says it is.

    Raises:
        ApiError: there is none, or it was registered with another key.
    """
    instance = await session.get(ContainerInstance, arns.parse_container_instance(arn, cluster))
    if instance is None:
        raise ApiError("InvalidInstanceException", "The container instance is not registered.")
    check_owner(instance, access_key_id)
    _check_cluster(instance, cluster)
    return instance


def check_owner(instance: ContainerInstance, access_key_id: str) -> None:
    """Return if the key may speak for the instance: it is the one that registered it.

    Raises:
        ApiError: it is another.
    """
    if instance.access_key_id != access_key_id:
        raise ApiError(
            "AccessDeniedException", "The container instance was registered with another key."
        )


def _check_cluster(instance: ContainerInstance, cluster: str) -> None:
    """Return if the instance is where the caller was allowed to say that it is."""
    if instance.cluster != cluster:
        raise client_error("The referenced container instance is not one of this cluster.")


async def render_instance(arns: Arns, session: Session, instance: ContainerInstance) -> Json:
    """Return an instance as DescribeContainerInstances answers it, with its tags."""
    rows = await session.execute(
        select(Task.last_status, func.count())
        .where(Task.instance_id == instance.id, LIVE)
        .group_by(Task.last_status)
    )
    counts = dict(rows.all())
    running = counts.pop("RUNNING", 0)
    resources = instance.document.get("totalResources", [])
    return {
        "containerInstanceArn": arns.container_instance(instance.cluster, instance.id),
        "status": shown_status(instance),
        "agentConnected": is_running(instance.connected_until),
        "runningTasksCount": running,
        "pendingTasksCount": sum(counts.values()),
        "versionInfo": instance.document.get("versionInfo", {}),
        "attributes": instance.document.get("attributes", []),
        "registeredResources": resources,
        "remainingResources": [_take_reserved(instance, resource) for resource in resources],
        "registeredAt": instance.registered_at,
        "tags": instance.tags,
        "attachments": [],
    }


def _take_reserved(instance: ContainerInstance, resource: Json) -> Json:
    """Return what is left of a resource; nothing is when an instance has more tasks than room."""
    reserved = {
        "CPU": instance.reserved_cpu_units,
        "MEMORY": instance.reserved_memory_mib,
        "STORAGE": instance.reserved_storage_gib,
    }.get(resource.get("name", ""))
    if reserved is None or "integerValue" not in resource:
        return resource
    return {**resource, "integerValue": max(resource["integerValue"] - reserved, 0)}


OPERATIONS: Final[dict[str, Operation]] = {
    "RegisterContainerInstance": register_container_instance,
    "DiscoverPollEndpoint": discover_poll_endpoint,
}
