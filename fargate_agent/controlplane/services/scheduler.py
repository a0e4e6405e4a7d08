"""The scheduler: keeps looking at what services need, and does it.

It remembers nothing: everything is decided from the database, once to see whether there is anything
to do, and again by the only writer. So several processes may do this side by side, and each of them
may die at any time.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Select, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import lazyload, load_only

from fargate_agent.controlplane.definitions import find_definition
from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.services import deploying, news
from fargate_agent.controlplane.services.failures import INCONSISTENT_STARTS
from fargate_agent.controlplane.services.launches import plan_tasks
from fargate_agent.controlplane.services.planning import Decision, Stop, plan_service
from fargate_agent.controlplane.state.announcements import SERVICES
from fargate_agent.controlplane.state.model import ContainerInstance, Deployment, Service, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import announce
from fargate_agent.controlplane.tasks.running import end_task, make_tasks
from fargate_agent.controlplane.vpc import read_vpc_of

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 30.0
"""How often services are looked at even if nothing is announced."""
PLACE_EVERY_S: Final = 5.0
"""How often a task is tried to be placed for which there was no room."""
FAULT_PAUSE_S: Final = 2.0
"""How long to wait when the database doesn't answer."""

_FACTS: Final = (
    Task.id,
    Task.deployment_id,
    Task.instance_id,
    Task.desired_status,
    Task.last_status,
    Task.health_status,
    Task.stop_code,
    Task.protected_until,
    Task.created_at,
    Task.started_at,
    Task.stopped_at,
)
"""What is decided from."""


async def run(plane: Plane) -> None:
    """Keep services as they should be, until cancelled."""
    with plane.announcements.listening(SERVICES) as wake:
        while True:
            wake.clear()
            try:
                pause_s = await look(plane)
            except SQLAlchemyError as error:
                log.error("services were not looked after: %s", error)
                pause_s = FAULT_PAUSE_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await wake.wait()


async def look(plane: Plane) -> float:
    """Do for every service what it needs; return after how many seconds to look again."""
    now = time.time()
    moments = [now + LOOK_EVERY_S]
    async with plane.store.read() as session:
        views = await _read_all(session)
    for view in views:
        decision = view.plan(now)
        if decision.look_again_at is not None:
            moments.append(decision.look_again_at)
        if not _is_to_be_done(view, decision):
            continue
        serve = partial(_serve, plane, view.service.id)
        if not await (plane.store.insist(serve) if decision.stops else serve()):
            moments.append(now + PLACE_EVERY_S)
    return max(min(moments) - time.time(), 0.0)


@dataclass(frozen=True, slots=True)
class _View:
    service: Service
    deployments: list[Deployment]
    tasks: list[Task]
    draining: Collection[str]

    @property
    def primary(self) -> Deployment:
        return self.deployments[0]

    def plan(self, now: float, *, crowded: bool = False) -> Decision:
        return plan_service(
            self.service,
            self.deployments,
            self.tasks,
            now,
            draining=self.draining,
            crowded=crowded,
        )


async def _read_all(session: Session) -> list[_View]:
    draining = await _read_draining(session)
    services = await session.scalars(select(Service).where(Service.status != "INACTIVE"))
    views = {service.id: _View(service, [], [], draining) for service in services}
    deployments = await session.scalars(
        select(Deployment)
        .where(Deployment.service_id.in_(views), Deployment.status != "INACTIVE")
        .order_by(Deployment.status.desc())
    )
    owners: dict[str | None, _View] = {}
    for deployment in deployments:
        owners[deployment.id] = views[deployment.service_id]
        views[deployment.service_id].deployments.append(deployment)
    facts = select(Task).options(load_only(*_FACTS), lazyload(Task.eni))
    for task in await session.scalars(_unsettled(facts, [str(owner) for owner in owners])):
        owners[task.deployment_id].tasks.append(task)
    return list(views.values())


async def _read_draining(session: Session) -> Collection[str]:
    """Return the ids of the container instances whose tasks are to go elsewhere."""
    found = await session.scalars(
        select(ContainerInstance.id).where(ContainerInstance.status == "DRAINING")
    )
    return frozenset(found)


def _unsettled(chosen: Select[Task], deployment_ids: Sequence[str]) -> Select[Task]:
    return chosen.where(Task.deployment_id.in_(deployment_ids), ~Task.settled).order_by(
        Task.created_at, Task.id
    )


def _is_to_be_done(view: _View, decision: Decision) -> bool:
    acts = (
        decision.settled,
        decision.starts,
        decision.stops,
        decision.drained,
        decision.outcome,
        decision.ended,
    )
    return (
        any(acts)
        or decision.steady != view.service.steady
        or decision.blocked
        or _wanted_counts(view, decision) != [d.desired_count for d in view.deployments]
    )


async def _serve(plane: Plane, service_id: str) -> bool:
    """Do what a service needs, as it stands now; return whether every task found a place."""
    async with plane.store.write() as session:
        service = await session.get_one(Service, service_id)
        if service.status == "INACTIVE":
            return True
        deployments = await deploying.read_deployments(session, service)
        found = await session.scalars(_unsettled(select(Task), [d.id for d in deployments]))
        view = _View(service, deployments, list(found), await _read_draining(session))
        now = time.time()
        decision = view.plan(now)
        if _take_note(view, decision):
            news.tell_inconsistent(plane.arns, session, service)
        await _end_tasks(plane, session, view, decision.stops)
        is_placed = await _start_tasks(plane, session, view, decision.starts)
        if not is_placed:
            await _end_tasks(plane, session, view, view.plan(now, crowded=True).stops)
        for deployment, count in zip(deployments, _wanted_counts(view, decision), strict=True):
            deployment.desired_count = count
        await _conclude(plane.arns, session, view, decision)
    return is_placed


def _take_note(view: _View, decision: Decision) -> bool:
    """Count the tasks that have ended, each once; return whether too many failed by now."""
    service, record = view.service, decision.record
    for task in view.tasks:
        task.settled = task.id in decision.settled
    if record.failed_tasks > view.primary.failed_tasks:
        view.primary.updated_at = round(time.time(), 3)
    view.primary.failed_tasks = record.failed_tasks
    impaired = service.failed_starts < INCONSISTENT_STARTS <= record.failed_starts
    service.failed_starts = record.failed_starts
    service.start_not_before = record.start_not_before
    return impaired


async def _end_tasks(plane: Plane, session: Session, view: _View, stops: Sequence[Stop]) -> None:
    tasks = {task.id: task for task in view.tasks if task.desired_status == "RUNNING"}
    chosen = [stop for stop in stops if stop.task_id in tasks]
    for stop in chosen:
        await end_task(
            plane, session, tasks[stop.task_id], stop.reason, "ServiceSchedulerInitiated"
        )
    news.tell_stopped(view.service, [stop.task_id for stop in chosen])


async def _start_tasks(plane: Plane, session: Session, view: _View, count: int) -> bool:
    if count == 0:
        return True
    service = view.service
    definition = await find_definition(plane.arns, session, view.primary.document["taskDefinition"])
    try:
        if definition is None:
            raise client_error("TaskDefinition not found.")
        vpc = await read_vpc_of(session, plane.settings.region, view.primary.document)
        launch = plan_tasks(plane, vpc, service, view.primary, definition, count, view.tasks)
    except ApiError as error:
        news.tell_not_placed(plane.arns, session, service, error.message)
        return False
    tasks, failures = await make_tasks(plane, session, launch)
    view.tasks.extend(tasks)
    news.tell_started(service, [task.id for task in tasks])
    if failures and time.time() >= plane.started_at + plane.settings.agent_grace_s:
        failure = failures[0]
        detail = failure.get("detail", "")
        news.tell_not_placed(plane.arns, session, service, failure["reason"], detail)
    return not failures


def _wanted_counts(view: _View, decision: Decision) -> list[int]:
    """Return what each deployment should have: those being replaced, what they have still."""
    stopping = {stop.task_id for stop in decision.stops}
    wanted = [
        task.deployment_id
        for task in view.tasks
        if task.desired_status == "RUNNING" and task.id not in stopping
    ]
    primary = view.service.desired_count
    return [primary, *(wanted.count(deployment.id) for deployment in view.deployments[1:])]


async def _conclude(arns: Arns, session: Session, view: _View, decision: Decision) -> None:
    service, was_steady = view.service, view.service.steady
    deploying.drain(view.deployments, decision.drained)
    if decision.outcome == "COMPLETED":
        deploying.complete(arns, session, service, view.primary)
    if decision.outcome == "FAILED":
        await deploying.fail(arns, session, service, view.primary)
        announce(session, SERVICES)  # it may have another primary deployment now
    service.steady = decision.steady
    if decision.steady and not was_steady:
        news.tell_steady(arns, session, service)
    if decision.blocked:
        news.tell(service, news.BLOCKED)
    if decision.ended:
        service.status = "INACTIVE"
        deploying.drain(view.deployments, [deployment.id for deployment in view.deployments])
        log.info("service %s: is gone", service.name)
