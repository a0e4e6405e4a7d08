"""The life of one task, from its plan to STOPPED."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from fargate_agent.drivers import Drivers, Image, PullProgress
from fargate_agent.errors import InternalError, TaskError
from fargate_agent.parallel import together, until
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.task.containers import ContainerRuns, current_container
from fargate_agent.task.status import ContainerFacts, StateChange, StopCode, TaskFacts, TaskStatus
from fargate_agent.task.steps import Wave, container_waves, do, ground_wave, network_waves, undo

log = logging.getLogger(__name__)

current_task: Final[ContextVar[str]] = ContextVar("current_task", default="")
"""Id of the task that the running coroutine works for; the log formatter shows it."""

ESSENTIAL_EXITED: Final = "Essential container in task exited"
"""Source: ECS developer guide, stopped task error messages."""

Report = Callable[["TaskRun"], Awaitable[None]]
"""Persists the facts of a run and tells the control plane."""


@dataclass(slots=True, kw_only=True)
class TaskRun:
    """One task that an agent answers for. `run_task` alone changes it; `stop` is set by others."""

    plan: TaskPlan
    stop: asyncio.Future[str]
    """Set to end the task; its value is the reason."""
    facts: TaskFacts = field(default_factory=TaskFacts)
    images: dict[str, Image] = field(default_factory=dict)
    """By the reference in the task definition. Empty for an adopted task."""
    progress: dict[str, PullProgress] = field(default_factory=dict)
    """By the same reference."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, whenever facts or progress change."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the task is STOPPED and everything was taken back."""

    def note_move(self) -> None:
        """Wake whoever watches."""
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()

    def change(self) -> StateChange:
        """Return a frozen copy of the facts, for the control plane."""
        facts = self.facts
        return StateChange(
            task_arn=self.plan.arn,
            cluster_arn=self.plan.cluster_arn,
            status=facts.status,
            reason=facts.reason,
            stop_code=facts.stop_code,
            pull_started_at=facts.pull_started_at,
            pull_stopped_at=facts.pull_stopped_at,
            execution_stopped_at=facts.execution_stopped_at,
            health=facts.health,
            containers=tuple(container.copy() for container in facts.containers.values()),
            attached=(
                tuple(eni.attachment_arn for eni in self.plan.enis)
                if facts.status in (TaskStatus.PENDING, TaskStatus.RUNNING)
                else ()
            ),
        )


async def run_task(run: TaskRun, drivers: Drivers, report: Report) -> None:
    """Bring a task up, wait for its end, take everything down again.

    Setting `run.stop` ends the task. Cancelling this coroutine does not end the task: it leaves it
    running, for the next agent to adopt by calling `run_task` again with the facts it has stored.
    """
    current_task.set(run.plan.id)
    for container in run.plan.containers:
        facts = run.facts.containers.setdefault(
            container.name, ContainerFacts(name=container.name, runtime_id=container.id)
        )
        facts.essential = container.essential
    containers = ContainerRuns(run.plan, run.facts, run.images, drivers, save=partial(report, run))
    ground, network = ground_wave(run.plan, drivers), network_waves(run.plan, drivers)
    waves = container_waves(run.plan, containers.start, containers.stop)

    async def advance(status: TaskStatus) -> None:
        if status.is_after(run.facts.status):
            run.facts.status = status
            log.info("task %s is %s%s", run.plan.id, status, _in_brackets(run.facts.reason))
        run.note_move()
        await report(run)

    if not run.facts.status.is_after(TaskStatus.RUNNING):
        end = await _live(run, drivers, containers, [ground, *network], advance)
        if run.stop.done():
            end = run.stop.result(), StopCode.USER_INITIATED
        run.facts.reason, run.facts.stop_code = end
        await advance(TaskStatus.STOPPING)
    await drivers.runtime.ready()
    await undo([ground, *network, *waves])
    await advance(TaskStatus.STOPPED)
    run.ended.set()


async def _live(
    run: TaskRun,
    drivers: Drivers,
    containers: ContainerRuns,
    waves: list[Wave],
    advance: Callable[[TaskStatus], Awaitable[None]],
) -> tuple[str, StopCode]:
    """Bring the task up and wait for its end; return why it ended.

    Containers are made of images that are here while the interfaces are still being attached. What
    needs the network, a pull or the start of a container, waits for it.
    """
    ground, *network = waves

    async def join_network() -> None:
        await do(network)
        await advance(TaskStatus.PENDING)
        await containers.confirm_addresses()
        containers.network.set()

    async def run_containers() -> None:
        await pull_images(run, drivers, containers.network)
        await containers.run(advance)

    try:
        async with until(run.stop):
            containers.choose_loggers()
            await drivers.runtime.ready()
            await do([ground])
            await together([run_containers(), join_network()])
    except TaskError as error:
        if error.container in run.facts.containers:
            run.facts.containers[error.container].reason = error.reason
        return error.reason, StopCode.TASK_FAILED_TO_START
    except Exception:  # a bug must not leave a half-built task
        log.exception("task %s: unexpected error", run.plan.id)
        reason = InternalError("unexpected error in the agent; its log says more").reason
        return reason, StopCode.TASK_FAILED_TO_START
    return ESSENTIAL_EXITED, StopCode.ESSENTIAL_CONTAINER_EXITED


async def pull_images(run: TaskRun, drivers: Drivers, network: asyncio.Event) -> None:
    """Get the image of every container that isn't there yet; of an adopted task, of none."""
    missing = [
        container
        for container in run.plan.containers
        if not await drivers.runtime.exists(container)
    ]
    if not missing:
        return
    run.facts.pull_started_at = run.facts.pull_started_at or datetime.now(UTC)
    by_reference = {container.image: container for container in missing}
    await together(_pull(run, drivers, container, network) for container in by_reference.values())
    run.facts.pull_stopped_at = datetime.now(UTC)
    for container in missing:
        run.facts.containers[container.name].image_digest = run.images[container.image].digest


async def _pull(
    run: TaskRun, drivers: Drivers, container: ContainerPlan, network: asyncio.Event
) -> None:
    current_container.set(container.name)

    def note(progress: PullProgress) -> None:
        run.progress[container.image] = progress
        run.note_move()

    try:
        run.images[container.image] = await drivers.images.ensure(
            container.image, run.plan, note, network
        )
    except TaskError as error:
        error.container = container.name
        raise


def _in_brackets(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
