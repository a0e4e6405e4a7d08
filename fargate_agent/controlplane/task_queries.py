"""DescribeTasks and ListTasks, and how long a stopped task can be asked about."""

import asyncio
import logging
import time
from typing import Final

from sqlalchemy import Select, delete, select
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.controlplane.clusters import find_cluster
from fargate_agent.controlplane.errors import ApiError, invalid_parameter
from fargate_agent.controlplane.model import ClientToken, Task
from fargate_agent.controlplane.pages import render_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.render import render_task
from fargate_agent.controlplane.tasks import TOKEN_LIFETIME_S
from fargate_agent.controlplane.validate import Json

log = logging.getLogger(__name__)

MAX_TASKS: Final = 100
"""Source: ECS API, DescribeTasks.tasks."""

FORGET_EVERY_S: Final = 600


async def describe_tasks(plane: Plane, call: Call) -> Json:
    """Describe tasks by id or ARN; those that aren't there are failures."""
    references = call.request["tasks"]
    if not references:
        raise invalid_parameter("Tasks cannot be empty.")
    if len(references) > MAX_TASKS:
        raise invalid_parameter(f"Tasks cannot have more than {MAX_TASKS} elements.")
    async with plane.store.read() as session:
        cluster = await find_cluster(plane, session, call.request)
        ids = dict.fromkeys(plane.arns.parse_task(reference, cluster) for reference in references)
        rows = await session.scalars(select(Task).where(Task.cluster == cluster, Task.id.in_(ids)))
        known = {task.id: task for task in rows}
    shown = [render_task(known[i], plane.arns, plane.vpc) for i in ids if i in known]
    if "TAGS" not in call.request.get("include", []):
        for task in shown:
            task["tags"] = []
    failures = [
        {"arn": plane.arns.task(cluster, i), "reason": "MISSING"} for i in ids if i not in known
    ]
    return {"tasks": shown, "failures": failures}


async def list_tasks(plane: Plane, call: Call) -> Json:
    """List the ARNs of tasks; without a desired status, of those that should run."""
    request = call.request
    _check_filters(request)
    async with plane.store.read() as session:
        cluster = await find_cluster(plane, session, request)
        ids = await session.scalars(_select_ids(plane, request, cluster))
        arns = [plane.arns.task(cluster, task_id) for task_id in ids]
    return render_page(arns, request, "taskArns")


async def forget_stopped(plane: Plane) -> None:
    """Forget tasks some time after they have stopped, and client tokens that are too old."""
    while True:
        try:
            await _forget_before(plane, time.time())
        except SQLAlchemyError as error:
            log.error("nothing was forgotten: %s", error)
        await asyncio.sleep(FORGET_EVERY_S)


async def _forget_before(plane: Plane, now: float) -> None:
    async with plane.store.write() as session:
        await session.execute(
            delete(Task).where(
                Task.last_status == "STOPPED",
                Task.stopped_at < now - plane.settings.stopped_task_retention_s,
            )
        )
        await session.execute(
            delete(ClientToken).where(ClientToken.created_at < now - TOKEN_LIFETIME_S)
        )


def _check_filters(request: Json) -> None:
    if "serviceName" in request:
        raise ApiError("ServiceNotFoundException", "Service not found.")
    others = {"family", "containerInstance", "launchType", "daemonName"} & request.keys()
    if "startedBy" in request and others:
        raise invalid_parameter(
            f"startedBy must be the only filter; {sorted(others)[0]} is given as well."
        )
    if "daemonName" in request:
        raise ApiError("UnsupportedFeatureException", "Daemons are not supported.")


def _select_ids(plane: Plane, request: Json, cluster: str) -> Select[str]:
    chosen = select(Task.id).where(
        Task.cluster == cluster, Task.desired_status == request.get("desiredStatus", "RUNNING")
    )
    if "family" in request:
        chosen = chosen.where(Task.family == request["family"])
    if "startedBy" in request:
        chosen = chosen.where(Task.started_by == request["startedBy"])
    if request.get("launchType", "FARGATE") != "FARGATE":
        chosen = chosen.where(Task.id == "")
    if "containerInstance" in request:
        instance_id = plane.arns.parse_container_instance(request["containerInstance"], cluster)
        chosen = chosen.where(Task.instance_id == instance_id)
    return chosen.order_by(Task.id)


OPERATIONS: Final[dict[str, Operation]] = {
    "DescribeTasks": describe_tasks,
    "ListTasks": list_tasks,
}
