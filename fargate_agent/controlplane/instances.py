"""Container instances: agents as they register, and which of them takes a task."""

import time
from typing import Final

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fargate_agent.controlplane.clusters import find_cluster
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.model import ContainerInstance, Task
from fargate_agent.controlplane.names import new_id
from fargate_agent.controlplane.overrides import TaskSize
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.validate import Json


async def register_container_instance(plane: Plane, call: Call) -> Json:
    """Register an agent; one that names its `containerInstanceArn` is registered again.

    An ARN that this control plane has forgotten is taken up again: the manifest that follows tells
    the agent which of its tasks are still wanted.
    """
    request = call.request
    resources = {
        resource.get("name"): resource.get("integerValue")
        for resource in request.get("totalResources", [])
    }
    async with plane.store.write() as session:
        cluster = await find_cluster(plane, session, request)
        arn = request.get("containerInstanceArn")
        instance_id = plane.arns.parse_container_instance(arn, cluster) if arn else new_id()
        instance = await session.get(ContainerInstance, instance_id)
        if instance is None:
            instance = ContainerInstance(
                id=instance_id,
                cluster=cluster,
                access_key_id=call.caller.access_key_id,
                registered_at=round(time.time(), 3),
            )
            session.add(instance)
        check_owner(instance, call.caller.access_key_id)
        instance.status = "ACTIVE"
        instance.cpu_units = resources.get("CPU")
        instance.memory_mib = resources.get("MEMORY")
        instance.document = {
            member: request[member]
            for member in ("versionInfo", "attributes", "tags", "totalResources")
            if member in request
        }
        await session.flush()
        shown = await _render(plane, session, instance)
    plane.sessions.expect(instance_id)
    return {"containerInstance": shown}


async def discover_poll_endpoint(plane: Plane, call: Call) -> Json:
    """Say where the agent's websocket is: here, by the name that the agent knows."""
    if arn := call.request.get("containerInstance"):
        async with plane.store.read() as session:
            cluster = await find_cluster(plane, session, call.request)
            await find_own_instance(plane, session, arn, cluster, call.caller.access_key_id)
    endpoint = f"http://{call.host}/"
    return {"endpoint": endpoint, "telemetryEndpoint": endpoint}


async def find_own_instance(
    plane: Plane, session: AsyncSession, arn: str, cluster: str, access_key_id: str
) -> ContainerInstance:
    """Return the container instance that an agent says it is.

    Raises:
        ApiError: there is none, or it was registered with another key.
    """
    instance = await session.get(
        ContainerInstance, plane.arns.parse_container_instance(arn, cluster)
    )
    if instance is None:
        raise ApiError("InvalidInstanceException", "The container instance is not registered.")
    check_owner(instance, access_key_id)
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


async def wait_for_agent(plane: Plane, cluster: str) -> None:
    """Return when an agent of the cluster is connected; at once if none is even registered.

    An agent that restarts is away for a moment; after `agent_grace_s` it counts as gone.
    """
    async with plane.store.read() as session:
        instances = await session.scalars(_active_instances(cluster))
        ids = [instance.id for instance in instances]
    if ids:
        await plane.sessions.wait_connected(ids)


async def choose_instance(
    plane: Plane, session: AsyncSession, cluster: str, size: TaskSize
) -> ContainerInstance | None:
    """Return the connected instance with the fewest tasks that has room; None if there is none."""
    best: tuple[int, ContainerInstance] | None = None
    for instance in await session.scalars(_active_instances(cluster)):
        if not plane.sessions.is_connected(instance.id):
            continue
        used = (
            await session.execute(
                select(func.count(), func.sum(Task.cpu_units), func.sum(Task.memory_mib)).where(
                    Task.instance_id == instance.id, Task.last_status != "STOPPED"
                )
            )
        ).one()
        count, cpu_units, memory_mib = used[0], used[1] or 0, used[2] or 0
        fits = plane.settings.overcommit or (
            _has_room(instance.cpu_units, cpu_units + size.cpu_units)
            and _has_room(instance.memory_mib, memory_mib + size.memory_mib)
        )
        if fits and (best is None or count < best[0]):
            best = count, instance
    return best[1] if best else None


def _has_room(total: int | None, needed: int) -> bool:
    return total is None or needed <= total


def _active_instances(cluster: str) -> Select[ContainerInstance]:
    return (
        select(ContainerInstance)
        .where(ContainerInstance.cluster == cluster, ContainerInstance.status == "ACTIVE")
        .order_by(ContainerInstance.registered_at)
    )


async def _render(plane: Plane, session: AsyncSession, instance: ContainerInstance) -> Json:
    rows = await session.execute(
        select(Task.last_status == "RUNNING", func.count())
        .where(Task.instance_id == instance.id, Task.last_status != "STOPPED")
        .group_by(Task.last_status == "RUNNING")
    )
    counts = dict(rows.all())
    resources = instance.document.get("totalResources", [])
    return {
        "containerInstanceArn": plane.arns.container_instance(instance.cluster, instance.id),
        "status": instance.status,
        "agentConnected": plane.sessions.is_connected(instance.id),
        "runningTasksCount": counts.get(True, 0),
        "pendingTasksCount": counts.get(False, 0),
        "versionInfo": instance.document.get("versionInfo", {}),
        "attributes": instance.document.get("attributes", []),
        "registeredResources": resources,
        "remainingResources": resources,
        "registeredAt": instance.registered_at,
        "tags": instance.document.get("tags", []),
        "attachments": [],
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "RegisterContainerInstance": register_container_instance,
    "DiscoverPollEndpoint": discover_poll_endpoint,
}
