"""How far a task and its containers have come, and the report of it.

    PROVISIONING ─► PENDING ─► RUNNING ─► STOPPING ─► DEPROVISIONING ─► STOPPED
      network        images      all       SIGTERM      undo              final

A status only moves to the right and may skip.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from fargate_agent.plan import Replacement

MAX_RUNS: Final = 10
"""How many runs of a container are remembered; one may be restarted every minute for years."""


class TaskStatus(StrEnum):
    """`lastStatus` of a task, in the order in which a task goes through them."""

    PROVISIONING = "PROVISIONING"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    DEPROVISIONING = "DEPROVISIONING"
    STOPPED = "STOPPED"

    def is_after(self, other: "TaskStatus | None") -> bool:
        """Whether a task may move from `other` to this one."""
        order = list(TaskStatus)
        return other is None or order.index(self) > order.index(other)


class ContainerStatus(StrEnum):
    """`lastStatus` of a container."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class StopCode(StrEnum):
    """Why a task ends, as far as its agent knows. The control plane knows whether it had run.

    Source: ECS API, TaskStopCode.
    """

    TASK_FAILED_TO_START = "TaskFailedToStart"
    """An error ends it."""
    ESSENTIAL_CONTAINER_EXITED = "EssentialContainerExited"
    USER_INITIATED = "UserInitiated"
    """Somebody asked for its end, be it the control plane."""


class HealthStatus(StrEnum):
    """`healthStatus` of a container or a task."""

    UNKNOWN = "UNKNOWN"
    """No check, or none has said anything yet."""
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"


@dataclass(slots=True, kw_only=True)
class HealthFacts:
    """What the health check of a container has found so far, since its last start."""

    status: HealthStatus = HealthStatus.UNKNOWN
    since: datetime | None = None
    """When a check gave it this status."""
    failing_streak: int = 0
    """Failures in a row that count."""
    exit_code: int | None = None
    """Of the last check; None if it had none."""
    output: str = ""
    """The end of what the last check wrote, at most 1,024 characters."""
    start_period_is_over: bool = False
    """Whether a success has ended it."""


@dataclass(slots=True, kw_only=True)
class RunFacts:
    """One time that a container ran."""

    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    """None until it has ended, and for ever if it never started."""
    reason: str | None = None
    """Why it ended, if not by itself."""


@dataclass(slots=True, kw_only=True)
class ContainerFacts:
    """What has happened to one container so far. Owned by `run_task`; others only read."""

    name: str
    runtime_id: str
    essential: bool = True
    status: ContainerStatus = ContainerStatus.PENDING
    image_digest: str | None = None
    reason: str | None = None
    stop_began_s: float | None = None
    """When it was first told to stop, by the clock of the event loop. That is `time.monotonic`,
    which counts from the boot, so that an agent that comes later counts on."""
    runs: list[RunFacts] = field(default_factory=list)
    """The first, and the last `MAX_RUNS - 1`."""
    restart_count: int = 0
    health: HealthFacts | None = None
    """None if it has no health check."""

    @property
    def created_at(self) -> datetime | None:
        """When it was made."""
        return self.runs[0].created_at if self.runs else None

    @property
    def started_at(self) -> datetime | None:
        """When it was started first."""
        return self.runs[0].started_at if self.runs else None

    @property
    def finished_at(self) -> datetime | None:
        """When it ended for good; None before."""
        return self._last_run().finished_at if self.status is ContainerStatus.STOPPED else None

    @property
    def exit_code(self) -> int | None:
        """How it ended for good; None before, and for ever if it never started."""
        return self._last_run().exit_code if self.status is ContainerStatus.STOPPED else None

    @property
    def has_ended(self) -> bool:
        """Whether its last run has ended, be it to be restarted."""
        return self._last_run().exit_code is not None

    @property
    def may_run(self) -> bool:
        """Whether it was started and nobody saw its end."""
        run = self._last_run()
        return run.started_at is not None and run.exit_code is None

    def begin_run(self, created_at: datetime | None) -> RunFacts:
        """Add a run and return it. None: nobody knows when it was created."""
        run = RunFacts(created_at=created_at)
        self.runs.append(run)
        if len(self.runs) > MAX_RUNS:
            del self.runs[1]
        return run

    def drop_run(self) -> None:
        """Forget a restart that never started."""
        if len(self.runs) > 1 and self.runs[-1].started_at is None:
            del self.runs[-1]

    def finish(self) -> None:
        """Its last run was the last."""
        self.status = ContainerStatus.STOPPED
        self.reason = self._last_run().reason or self.reason

    def copy(self) -> "ContainerFacts":
        """Return a copy that shares nothing with this."""
        return replace(
            self,
            runs=[replace(run) for run in self.runs],
            health=None if self.health is None else replace(self.health),
        )

    def _last_run(self) -> RunFacts:
        return self.runs[-1] if self.runs else RunFacts()


@dataclass(slots=True, kw_only=True)
class TaskFacts:
    """What has happened to one task so far. Owned by `run_task`; others only read."""

    status: TaskStatus = TaskStatus.PROVISIONING
    reason: str | None = None
    stop_code: StopCode | None = None
    """Stands with `reason`, but in records of agents that knew none."""
    pull_started_at: datetime | None = None
    pull_stopped_at: datetime | None = None
    execution_stopped_at: datetime | None = None
    containers: dict[str, ContainerFacts] = field(default_factory=dict)
    """By name."""
    replacements: list[Replacement] = field(default_factory=list)
    """What stands for something else on this machine, as it turned out."""
    is_hurried: bool = False
    """Whether its containers are killed at once, whatever their stop timeouts are."""

    def note_replacement(self, one: Replacement) -> None:
        """Note what stands for something, in the place of what was noted of it before."""
        self.replacements = [
            other for other in self.replacements if (other.kind, other.what) != (one.kind, one.what)
        ]
        self.replacements.append(one)

    @property
    def health(self) -> HealthStatus:
        """The worst of the essential containers that have a health check.

        Source: amazon-ecs-agent, agent/tcs, the health status of a task.
        """
        found = {
            container.health.status
            for container in self.containers.values()
            if container.essential and container.health is not None
        }
        for status in (HealthStatus.UNHEALTHY, HealthStatus.UNKNOWN, HealthStatus.HEALTHY):
            if status in found:
                return status
        return HealthStatus.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A task has moved on: what is reported to the control plane. A frozen copy of the facts."""

    task_arn: str
    cluster_arn: str
    status: TaskStatus
    reason: str | None = None
    stop_code: StopCode | None = None
    pull_started_at: datetime | None = None
    pull_stopped_at: datetime | None = None
    execution_stopped_at: datetime | None = None
    health: HealthStatus = HealthStatus.UNKNOWN
    containers: tuple[ContainerFacts, ...] = ()
    attached: tuple[str, ...] = ()
    """ARNs of the ENI attachments that are in place."""
    replacements: tuple[Replacement, ...] = ()
    """What stands for something else on this machine, as far as it is known."""
