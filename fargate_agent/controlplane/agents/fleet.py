"""Container instances as operators see them: listed, described, drained, deregistered."""

import logging
import time
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.agents.instances import render_instance
from fargate_agent.controlplane.agents.leases import is_active, shown_status
from fargate_agent.controlplane.clusters.clusters import find_cluster
from fargate_agent.controlplane.errors import invalid_parameter, unsupported
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.pages import parse_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.announcements import AGENTS, SERVICES, instance_topic
from fargate_agent.controlplane.state.model import LIVE, ContainerInstance, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import announce
from fargate_agent.controlplane.tasks.changes import changing
from fargate_agent.controlplane.tasks.lifecycle import TERMINATED, apply_change, request_stop
from fargate_agent.controlplane.validate import Json

log = logging.getLogger(__name__)

MAX_DESCRIBED: Final = 100
"""Source: ECS API, DescribeContainerInstances.containerInstances."""
MAX_UPDATED: Final = 10
"""Source: ECS API, UpdateContainerInstancesState.containerInstances."""

DEREGISTERED: Final = "The container instance was deregistered"
"""Why the tasks of an instance have ended. Unverified."""

_STATES: Final = ("ACTIVE", "DRAINING")
"""What an operator can choose. Source: ECS API, UpdateContainerInstancesState.status."""


async def list_container_instances(plane: Plane, call: Call) -> Json:
    """List the ARNs of the instances of a cluster that aren't inactive."""
    request = call.request
    if request.get("filter"):
        raise unsupported("The filter of ListContainerInstances is not supported here.")
    page = parse_page(request)
    async with plane.store.read() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        chosen = select(ContainerInstance.id).where(
            ContainerInstance.cluster == cluster, is_active()
        )
        if "status" in request:
            chosen = chosen.where(ContainerInstance.status == request["status"])
        ids = (await session.scalars(page.select(chosen, ContainerInstance.id))).all()
    return page.render(
        ids, "containerInstanceArns", lambda id_: plane.arns.container_instance(cluster, id_)
    )


async def describe_container_instances(plane: Plane, call: Call) -> Json:
    """Describe instances by id or ARN; those that aren't there are failures."""
    request = call.request
    async with plane.store.read() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        found, failures = await _find_instances(
            plane.arns, session, request, cluster, MAX_DESCRIBED
        )
        shown = [await render_instance(plane.arns, session, instance) for instance in found]
    if "TAGS" not in request.get("include", []):
        for instance in shown:
            instance["tags"] = []
    return {"containerInstances": shown, "failures": failures}


async def update_container_instances_state(plane: Plane, call: Call) -> Json:
    """Let instances take no new tasks, or take some again; services move theirs elsewhere."""
    request = call.request
    if request["status"] not in _STATES:  # unverified
        raise invalid_parameter(f"status must be one of: {', '.join(_STATES)}")
    async with plane.store.write() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        found, failures = await _find_instances(plane.arns, session, request, cluster, MAX_UPDATED)
        changed = [instance for instance in found if shown_status(instance) in _STATES]
        for instance in changed:
            instance.status = request["status"]
        announce(session, AGENTS)
        announce(session, SERVICES)
        shown = [await render_instance(plane.arns, session, instance) for instance in changed]
    failures += [
        {"arn": plane.arns.container_instance(cluster, instance.id), "reason": "INACTIVE"}
        for instance in found
        if instance not in changed
    ]
    return {"containerInstances": shown, "failures": failures}


async def deregister_container_instance(plane: Plane, call: Call) -> Json:
    """Retire an instance. By force its tasks end here, whatever becomes of them on its machine.

    An agent that is still there registers as another instance, and is told to stop those tasks.
    """
    request = call.request
    async with plane.store.write() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        instance_id = plane.arns.parse_container_instance(request["containerInstance"], cluster)
        instance = await session.get(ContainerInstance, instance_id)
        if instance is None or instance.cluster != cluster:
            raise invalid_parameter(f"Referenced container instance {instance_id} not found.")
        if instance.reserved_tasks and not request.get("force", False):
            raise invalid_parameter("Found running tasks on the instance.")
        await _end_tasks(plane, session, instance)
        instance.status = "INACTIVE"
        announce(session, instance_topic(instance.id))
        announce(session, AGENTS)
        await session.flush()
        shown = await render_instance(plane.arns, session, instance)
    log.info("agent %s: deregistered by %s", instance.id, call.caller.principal)
    return {"containerInstance": shown}


async def refuse(plane: Plane, call: Call) -> Json:  # noqa: RUF029 - an operation
    """Say that an operation isn't done here; its caller had permission.

    Raises:
        ApiError: always.
    """
    del plane, call
    raise unsupported("Attributes, and changes of a container or attachment alone, are not here.")


async def _find_instances(
    arns: Arns, session: Session, request: Json, cluster: str, most: int
) -> tuple[list[ContainerInstance], list[Json]]:
    references = request["containerInstances"]
    if not 1 <= len(references) <= most:  # unverified
        raise invalid_parameter(f"Specify 1 to {most} container instances.")
    parse = arns.parse_container_instance
    ids = dict.fromkeys(parse(reference, cluster) for reference in references)
    rows = await session.scalars(
        select(ContainerInstance).where(
            ContainerInstance.cluster == cluster, ContainerInstance.id.in_(ids)
        )
    )
    known = {instance.id: instance for instance in rows}
    failures = [
        {"arn": arns.container_instance(cluster, id_), "reason": "MISSING"}
        for id_ in ids
        if id_ not in known
    ]
    return [known[id_] for id_ in ids if id_ in known], failures


async def _end_tasks(plane: Plane, session: Session, instance: ContainerInstance) -> None:
    live = select(Task).where(Task.instance_id == instance.id, LIVE)
    now = round(time.time(), 3)
    for task in (await session.scalars(live)).all():
        with changing(plane, session, task, instance):
            request_stop(task, DEREGISTERED, now, TERMINATED)
            apply_change(task, {"status": "STOPPED"}, now)


OPERATIONS: Final[dict[str, Operation]] = {
    "DeregisterContainerInstance": deregister_container_instance,
    "DescribeContainerInstances": describe_container_instances,
    "ListContainerInstances": list_container_instances,
    "UpdateContainerInstancesState": update_container_instances_state,
    "DeleteAttributes": refuse,
    "ListAttributes": refuse,
    "PutAttributes": refuse,
    "SubmitAttachmentStateChanges": refuse,
    "SubmitContainerStateChange": refuse,
}
