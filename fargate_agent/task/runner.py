"""The life of one task, from its plan to STOPPED."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from fargate_agent.drivers import Drivers, Image, PullProgress
from fargate_agent.errors import InternalError, TaskError
from fargate_agent.parallel import together, until
from fargate_agent.plan import EniPlan, TaskPlan
from fargate_agent.task.containers import Containers
from fargate_agent.task.network import TaskNetwork
from fargate_agent.task.phases import Phases, current_phases
from fargate_agent.task.pulls import ImageKey, Pulls
from fargate_agent.task.status import ContainerFacts, StateChange, StopCode, TaskFacts, TaskStatus
from fargate_agent.task.steps import (
    Wave,
    do,
    ground_wave,
    local_volumes_wave,
    network_waves,
    undo,
)
from fargate_agent.task.surroundings import Surroundings

log = logging.getLogger(__name__)

current_task: Final[ContextVar[str]] = ContextVar("current_task", default="")
"""Id of the task that the running coroutine works for; the log formatter shows it."""

ESSENTIAL_EXITED: Final = "Essential container in task exited"
"""Source: ECS developer guide, stopped task error messages."""

Report = Callable[["TaskRun"], Awaitable[None]]
"""Persists the facts of a run and tells the control plane; or only persists them."""


@dataclass(slots=True, kw_only=True)
class TaskRun:
    """A task that an agent answers for. Only `run_task` changes it; others set `stop`, `hurry`.

    The supervisor replaces the plan when the security groups of an ENI have changed.
    """

    plan: TaskPlan
    stop: asyncio.Future[str]
    """Set to end the task; its value is the reason."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to kill its containers at once when it ends, also if it is ending already."""
    facts: TaskFacts = field(default_factory=TaskFacts)
    is_new: bool = False
    """Whether it is certain that no agent has run it before."""
    images: dict[ImageKey, Image] = field(default_factory=dict)
    """By what the task definition says of them. Empty for an adopted task."""
    progress: dict[str, PullProgress] = field(default_factory=dict)
    """By the reference in the task definition."""
    phases: Phases = field(default_factory=Phases)
    """How long the parts of its start took; of a new one only."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced by a new one, whenever facts or progress change."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the task is STOPPED and everything was taken back."""

    def show(self, reference: str, progress: PullProgress) -> None:
        """Take how far the pull of an image is."""
        self.progress[reference] = progress
        self.note_move()

    def note_move(self) -> None:
        """Wake whoever watches."""
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()

    def find_eni(self, eni: EniPlan) -> EniPlan:
        """Return an ENI as it is planned now."""
        return next(one for one in self.plan.enis if one.id == eni.id)

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
            replacements=(*self.plan.replacements, *facts.replacements),
        )


async def run_task(
    run: TaskRun, drivers: Drivers, report: Report, save: Report | None = None
) -> None:
    """Bring a task up, wait for its end, take everything down again.

    Setting `run.stop` ends the task. Cancelling this coroutine does not end the task: it leaves it
    running, for the next agent to adopt by calling `run_task` again with the facts it has stored.
    `save` only persists what the next agent has to know; without it, `report` does.
    """
    current_task.set(run.plan.id)
    current_phases.set(run.phases if run.is_new else None)
    for container in run.plan.containers:
        facts = run.facts.containers.setdefault(
            container.name, ContainerFacts(name=container.name, runtime_id=container.id)
        )
        facts.essential = container.essential
    ground = [ground_wave(run.plan, drivers), local_volumes_wave(run.plan, drivers)]
    network = network_waves(run.plan, drivers, run.find_eni)

    async def advance(status: TaskStatus) -> None:
        if status.is_after(run.facts.status):
            run.facts.status = status
            log.info("task %s is %s%s", run.plan.id, status, _in_brackets(run.facts.reason))
        if run.is_new and status.is_after(TaskStatus.PENDING):
            run.phases.end(failed=status is not TaskStatus.RUNNING)
        run.note_move()
        await report(run)

    task_network = TaskNetwork()
    task = Surroundings(
        plan=run.plan,
        facts=run.facts,
        drivers=drivers,
        pulls=Pulls(run.plan, run.facts, drivers, run.images, run.show, task_network),
        network=task_network,
        hurry=run.hurry,
        is_new=run.is_new,
        advance=advance,
        save=partial(save or report, run),
    )
    containers = Containers(task)
    if not run.facts.status.is_after(TaskStatus.RUNNING):
        end = await _live(run, task, containers, ground, network)
        if run.stop.done():
            end = run.stop.result(), run.facts.stop_code or StopCode.USER_INITIATED
        run.facts.reason, run.facts.stop_code = end
        await advance(TaskStatus.STOPPING)
    await drivers.runtime.ready()
    await containers.stop()
    await undo([*ground, *network])
    await advance(TaskStatus.STOPPED)
    run.ended.set()


async def _live(
    run: TaskRun,
    task: Surroundings,
    containers: Containers,
    ground: list[Wave],
    network: list[Wave],
) -> tuple[str, StopCode]:
    """Bring the task up and wait for its end; return why it ended.

    Containers are made of images that are here while the interfaces are still being attached. What
    needs the network, a pull or the start of a container, waits for it.
    """

    async def join_network() -> None:
        if any(container.refers for container in run.plan.containers):
            task.network.want()  # to fetch what they refer to takes longer than all before it
        await task.network.wait_until_wanted()
        await do(network)
        await task.advance(TaskStatus.PENDING)
        await task.confirm_addresses()
        task.network.set()
        if not run.facts.status.is_after(TaskStatus.PENDING):  # else no start depends on it
            await task.drivers.secrets.settled(run.plan)

    try:
        async with until(run.stop):
            task.choose_loggers()
            await task.drivers.runtime.ready()
            await do(ground)
            await together([containers.run(), join_network()])
    except TaskError as error:
        if error.container in run.facts.containers:
            run.facts.containers[error.container].reason = error.reason
        return error.reason, StopCode.TASK_FAILED_TO_START
    except Exception:  # a bug must not leave a half-built task
        log.exception("task %s: unexpected error", run.plan.id)
        reason = InternalError("unexpected error in the agent; its log says more").reason
        return reason, StopCode.TASK_FAILED_TO_START
    return ESSENTIAL_EXITED, StopCode.ESSENTIAL_CONTAINER_EXITED


def _in_brackets(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
