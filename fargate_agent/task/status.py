"""How far a task and its containers have come, and the report of it.

    PROVISIONING ─► PENDING ─► RUNNING ─► STOPPING ─► DEPROVISIONING ─► STOPPED
      network        images      all       SIGTERM      undo              final

A status only moves to the right and may skip.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


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


@dataclass(slots=True, kw_only=True)
class ContainerFacts:
    """What has happened to one container so far. Owned by `run_task`; others only read."""

    name: str
    runtime_id: str
    status: ContainerStatus = ContainerStatus.PENDING
    image_digest: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    """None until it has ended, and for ever if it never started."""
    reason: str | None = None
    stop_began_s: float | None = None
    """When it was first told to stop, by the clock of the event loop. That is `time.monotonic`,
    which counts from the boot, so that an agent that comes later counts on."""


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
    containers: tuple[ContainerFacts, ...] = ()
    attached: tuple[str, ...] = ()
    """ARNs of the ENI attachments that are in place."""
