"""RunTask and StopTask, and what is refused beside them.

RunTask writes down the intent and provisions the ENIs in one transaction before it answers; handing
the tasks to an agent follows from what is written, so it survives a crash at any point.
"""

import hashlib
import json
import logging
import time
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.access.permissions import Target, check_permission
from fargate_agent.controlplane.agents.capacity import choose_instance, find_usable, reserve
from fargate_agent.controlplane.agents.connections import wait_for_room
from fargate_agent.controlplane.agents.places import find_able, find_places, find_subnets
from fargate_agent.controlplane.agents.shortage import explain_shortage
from fargate_agent.controlplane.clusters.clusters import find_cluster, plan_capacity
from fargate_agent.controlplane.definitions import find_definition
from fargate_agent.controlplane.errors import ApiError, invalid_parameter, unsupported
from fargate_agent.controlplane.history.events import render_placement_failure
from fargate_agent.controlplane.names import Arns, new_id, new_uuid
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.roles.passing import check_pass_role, check_pass_volume_roles
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.announcements import instance_topic
from fargate_agent.controlplane.state.model import ClientToken, ContainerInstance, Eni, Event, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import add_event, announce
from fargate_agent.controlplane.tasks.changes import changing, note_task, task_not_found
from fargate_agent.controlplane.tasks.health import UNKNOWN, has_check, judge, may_restart
from fargate_agent.controlplane.tasks.launch import Launch, check_runnable, plan_launch
from fargate_agent.controlplane.tasks.lifecycle import STOPPED_BY_USER, request_stop
from fargate_agent.controlplane.tasks.managed_volumes import configure_volumes, mint_volumes
from fargate_agent.controlplane.tasks.overrides import override_task
from fargate_agent.controlplane.tasks.payload import render_task as render_task_message
from fargate_agent.controlplane.tasks.render import render_task
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import Vpc, read_vpc, read_vpc_of

log = logging.getLogger(__name__)

TOKEN_LIFETIME_S: Final = 24 * 3600
"""How long a client token is remembered. Source: ECS developer guide, "Idempotency"."""

NO_CAPACITY: Final = (
    "Capacity is unavailable at this time. Please try again later or in a different availability "
    "zone"
)
NO_ADDRESS: Final = "RESOURCE:ENI"
"""Source: ECS developer guide, "API failure reasons"."""
FAILURE_AGAIN_S: Final = 60
"""How long the same failure to place tasks is no event again."""

MAX_REASON_CHARS: Final = 255
"""Source: ECS API, StopTask.reason; from recollection."""
_NO_EXEC: Final = (
    "The execute command failed because execute command was not enabled when the task was run or "
    "the execute command agent isn’t running. Wait and try again or run a new task with execute "
    "command enabled and try again."
)


async def run_task(plane: Plane, call: Call) -> Json:
    """Make tasks; a request that is repeated with its client token is answered with the same."""
    request = call.request
    async with plane.store.read() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        if (replay := await _find_replay(plane.arns, session, cluster, request)) is not None:
            return replay
        found = await find_definition(plane.arns, session, request["taskDefinition"])
        planned = await plan_capacity(session, cluster, request)
        vpc = await read_vpc_of(session, plane.settings.region, request)
    definition = check_runnable(found)
    check_pass_role(plane, call, override_task(definition.document, request.get("overrides", {})))
    check_pass_volume_roles(plane, call, request.get("volumeConfigurations", []))
    launch = plan_launch(plane, vpc, cluster, definition, planned)
    await wait_for_room(plane, launch)
    async with plane.store.write() as session:
        await find_cluster(
            plane.arns, plane.settings, session, request
        )  # it may have been deleted meanwhile
        if (replay := await _find_replay(plane.arns, session, cluster, request)) is not None:
            return replay
        tasks, failures = await make_tasks(plane, session, launch)
        _note_trace(tasks, call.traceparent)
        if failures:
            await _note_failure(plane.arns, session, launch, failures[0])
        if tasks and "clientToken" in request:
            await session.merge(
                ClientToken(
                    cluster=cluster,
                    token=request["clientToken"],
                    request_digest=_digest(request),
                    task_ids=[task.id for task in tasks],
                    created_at=time.time(),
                )
            )
    if not _may_see_agents(plane.arns, call, cluster):
        failures = [{"reason": failure["reason"]} for failure in failures]
    answer = _answer(plane.arns, tasks, failures)
    for task in tasks:
        log.info("task %s: %s:%s on %s", task.id, task.family, task.revision, task.eni.address)
    return answer


def _may_see_agents(arns: Arns, call: Call, cluster: str) -> bool:
    """Whether the caller may be told which agents there are and what is free on them."""
    target = Target(arns.cluster(cluster))
    try:
        check_permission(call.caller, "ecs:ListContainerInstances", [target], arns)
    except ApiError:
        return False
    return True


async def stop_task(plane: Plane, call: Call) -> Json:
    """Want a task to end; to want it again changes nothing."""
    reason = call.request.get("reason", STOPPED_BY_USER)
    if len(reason) > MAX_REASON_CHARS:  # unverified
        raise invalid_parameter(f"reason can have at most {MAX_REASON_CHARS} characters.")
    async with plane.store.write() as session:
        task = await _find_task(plane.arns, plane.settings, session, call.request)
        await end_task(plane, session, task, reason, "UserInitiated")
    return {"task": {**render_task(task, plane.arns), "tags": []}}


async def start_task(plane: Plane, call: Call) -> Json:
    """Refuse: on Fargate nobody chooses the instance of a task."""
    async with plane.store.read() as session:
        await find_cluster(plane.arns, plane.settings, session, call.request)
    raise unsupported("StartTask is not supported: tasks are placed by the capacity manager.")


async def execute_command(plane: Plane, call: Call) -> Json:
    """Refuse, in the words that AWS has for a task in which nothing waits for commands."""
    request = call.request
    async with plane.store.read() as session:
        task = await _find_task(plane.arns, plane.settings, session, request)
    if not request["interactive"]:  # unverified
        raise invalid_parameter("Interactive must be true: nothing else is supported.")
    names = [container["name"] for container in task.containers]
    if request.get("container", names[0]) not in names:  # unverified
        raise invalid_parameter("The specified container was not found in the task.")
    if "container" not in request and len(names) > 1:  # unverified
        raise invalid_parameter("Container must be specified: the task has more than one.")
    raise invalid_parameter(_NO_EXEC)


async def make_tasks(
    plane: Plane, session: Session, launch: Launch
) -> tuple[list[Task], list[Json]]:
    """Make the tasks of a launch as far as there is room; return them, and what failed.

    They are there when the transaction is committed, and their agents are told.

    Raises:
        ApiError: a subnet or a security group is gone.
    """
    subnets, groups = [subnet.id for subnet in launch.subnets], launch.security_groups
    vpc = await read_vpc(session, plane.settings.region, subnets, groups)
    vpc.check(subnets, groups)  # one may have been deleted meanwhile
    places = find_places(await find_usable(plane.settings, session, launch.cluster), launch)
    tasks: list[Task] = []
    for subnet_id in find_subnets(plane.settings, places, launch.size):
        missing = launch.count - len(tasks)
        for eni in await vpc.provision(session, missing, subnet_id, groups):
            if len(tasks) == launch.count:
                break
            able = find_able(places[subnet_id], vpc.subnets[subnet_id], eni.mac)
            instance = choose_instance(plane.settings, able, launch.size)
            if instance is None:
                continue
            reserve(instance, launch.size)
            task = _render_row(plane.arns, vpc, launch, instance, eni, launch.providers[len(tasks)])
            session.add(task)
            note_task(plane.arns, session, task)
            announce(session, instance_topic(instance.id))
            tasks.append(task)
        if len(tasks) == launch.count:
            return tasks, []
    missing = launch.count - len(tasks)
    if find_subnets(plane.settings, places, launch.size):
        return tasks, _fail(missing, NO_ADDRESS)
    return tasks, _fail(missing, NO_CAPACITY, detail=await explain_shortage(session, launch))


def _note_trace(tasks: list[Task], traceparent: str | None) -> None:
    """Have the agents make the starts of tasks a part of a trace."""
    if traceparent is not None:
        for task in tasks:
            task.message = {**task.message, "traceparent": traceparent}


async def end_task(plane: Plane, session: Session, task: Task, reason: str, stop_code: str) -> None:
    """Want a task to end; its agent is told when the transaction is committed."""
    instance = await session.get_one(ContainerInstance, task.instance_id)
    with changing(plane, session, task, instance):
        request_stop(task, reason, round(time.time(), 3), stop_code)
    announce(session, instance_topic(task.instance_id))


async def _find_task(
    arns: Arns, settings: ControlPlaneSettings, session: Session, request: Json
) -> Task:
    cluster = await find_cluster(arns, settings, session, request)
    task = await session.get(Task, arns.parse_task(request["task"], cluster))
    if task is None or task.cluster != cluster:
        raise task_not_found()
    return task


async def _find_replay(arns: Arns, session: Session, cluster: str, request: Json) -> Json | None:
    """Return the answer to a request that was answered before; None if it wasn't.

    Raises:
        ApiError: its token belongs to another request.
    """
    if "clientToken" not in request:
        return None
    known = await session.get(ClientToken, (cluster, request["clientToken"]))
    if known is None or known.created_at < time.time() - TOKEN_LIFETIME_S:
        return None
    if known.request_digest != _digest(request):
        raise ApiError(
            "ConflictException",
            "The RunTask request could not be processed due to conflicts. The provided "
            "clientToken is already in use with a different request.",
            resourceIds=[arns.task(cluster, task_id) for task_id in known.task_ids],
        )
    rows = await session.scalars(select(Task).where(Task.id.in_(known.task_ids)))
    found = {task.id: task for task in rows}
    forgotten = [
        {"arn": arns.task(cluster, task_id), "reason": "MISSING"}
        for task_id in known.task_ids
        if task_id not in found
    ]
    return _answer(arns, [found[i] for i in known.task_ids if i in found], forgotten)


def _digest(request: Json) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


async def _note_failure(arns: Arns, session: Session, launch: Launch, failure: Json) -> None:
    """Write down why tasks weren't made: once a minute, for a client that tries in a loop."""
    definition = arns.task_definition(launch.definition.family, launch.definition.revision)
    now = round(time.time(), 3)
    event = render_placement_failure(arns, launch.cluster, definition, failure, now)
    lately = select(Event.detail).where(
        Event.kind == event.kind, Event.cluster == event.cluster, Event.at > now - FAILURE_AGAIN_S
    )
    created_at = {"createdAt": event.detail["createdAt"]}
    if all(known | created_at != event.detail for known in await session.scalars(lately)):
        add_event(session, event)


def _fail(count: int, reason: str, **more: str) -> list[Json]:
    return [{"reason": reason, **more} for _ in range(count)]


def _render_row(
    arns: Arns,
    vpc: Vpc,
    launch: Launch,
    instance: ContainerInstance,
    eni: Eni,
    provider: str | None,
) -> Task:
    task_id = new_id()
    arn = arns.task(launch.cluster, task_id)
    containers = [
        {**container, "containerArn": arns.container(launch.cluster, task_id, new_uuid())}
        for container in launch.containers
    ]
    rows = [_render_new_container(container, arn) for container in containers]
    volumes = mint_volumes(launch.volumes)
    essential = [c["name"] for c in containers if c["essential"]]
    return Task(
        id=task_id,
        cluster=launch.cluster,
        family=launch.definition.family,
        revision=launch.definition.revision,
        instance_id=instance.id,
        delivery="WAITING",
        desired_status="RUNNING",
        last_status="PROVISIONING",
        version=1,
        cpu_units=launch.size.cpu_units,
        memory_mib=launch.size.memory_mib,
        storage_gib=launch.size.storage_gib,
        group=launch.group,
        started_by=launch.started_by,
        deployment_id=None if launch.service is None else launch.service.deployment_id,
        settled=False,
        document=launch.document
        | ({"capacityProviderName": provider} if provider else {})
        | ({"attachments": volumes} if volumes else {}),
        tags=launch.tags,
        health_status=judge(rows, essential),
        connected=True,
        containers=rows,
        essential=essential,
        message=_render_message(arns, vpc, launch, arn, containers, volumes, eni),
        created_at=round(time.time(), 3),
        eni=eni,
    )


def _render_message(  # noqa: PLR0913 - what is one task's own, beside its launch
    arns: Arns,
    vpc: Vpc,
    launch: Launch,
    arn: str,
    containers: list[Json],
    volumes: list[Json],
    eni: Eni,
) -> Json:
    definition = override_task(launch.definition.document, launch.document["overrides"])
    message = render_task_message(
        arn=arn,
        cluster_arn=arns.cluster(launch.cluster),
        definition=configure_volumes(definition, launch.volumes, volumes),
        containers=containers,
        size=launch.size,
        group=launch.group,
        zone=vpc.subnets[eni.subnet_id].availability_zone,
        vpc_id=vpc.subnets[eni.subnet_id].vpc_id,
        eni=vpc.render_message(eni, arns),
        role_arn=arns.role,
    )
    return message if launch.service is None else {**message, "serviceName": launch.service.name}


def _render_new_container(container: Json, task_arn: str) -> Json:
    sizes: Json = {
        member: str(container[member])
        for member in ("cpu", "memory", "memoryReservation")
        if member in container
    }
    return {
        "containerArn": container["containerArn"],
        "taskArn": task_arn,
        "name": container["name"],
        "image": container["image"],
        "lastStatus": "PENDING",
        **({"healthStatus": UNKNOWN} if has_check(container) else {}),
        **({"restartCount": 0} if may_restart(container) else {}),
        **sizes,
    }


def _answer(arns: Arns, tasks: list[Task], failures: list[Json]) -> Json:
    return {
        "tasks": [render_task(task, arns) for task in tasks],
        "failures": failures,
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "RunTask": run_task,
    "StartTask": start_task,
    "StopTask": stop_task,
    "ExecuteCommand": execute_command,
}
