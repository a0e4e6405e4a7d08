"""State changes on their way to the control plane: in order for each task, retried for ever."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from fargate_agent.acs.api import ControlPlaneError, ControlPlaneUnreachableError
from fargate_agent.backoff import Backoff
from fargate_agent.errors import MAX_REASON_CHARS
from fargate_agent.task.status import ContainerFacts, StateChange, TaskStatus
from fargate_agent.wire.changes import (
    OURS,
    AttachmentStateChange,
    ContainerStateChange,
    ReplacementChange,
    SubmitTaskStateChange,
)

log = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 10
"""Calls at a time, of all tasks together. Source: amazon-ecs-agent, agent/eventhandler."""

MAX_FIELD_CHARS: Final = 255
"""Of an image digest or a runtime id. Source: as `MAX_REASON_CHARS`."""

FINAL_ERRORS: Final = frozenset({"InvalidParameterException"})
"""A change that is refused with these is dropped: repeating it can't help.

Source: amazon-ecs-agent, agent/eventhandler/task_handler.go.
"""


Acknowledged = Callable[[StateChange], Awaitable[None]]


class Submitter(Protocol):
    """The part of the control plane that the reporter calls."""

    async def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """See `ControlPlane.call`."""
        ...


class Reporter:
    """Sends state changes, one in flight for each task."""

    def __init__(self, control_plane: Submitter, *, first_delay_s: float = 1) -> None:
        self._control_plane = control_plane
        self._backoff = Backoff(first_s=first_delay_s, longest_s=30, factor=1.3)
        self._queues: dict[str, deque[StateChange]] = {}
        self._sent: dict[str, StateChange] = {}
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._refused: set[str] = set()
        """Members of ours that the control plane, an older one, has refused."""

    def __len__(self) -> int:
        """How many tasks have changes that the control plane hasn't taken."""
        return len(self._queues)

    def send(self, change: StateChange) -> None:
        """Queue a change; one that says nothing new is dropped.

        One that waits gives way to a newer one of the same status, which says all that it does: a
        container may be restarted for weeks while no control plane answers.
        """
        queue = self._queues.get(change.task_arn)
        last = queue[-1] if queue else self._sent.get(change.task_arn)
        if last is not None and not _says_more(change, last):
            return
        if queue is None:
            queue = self._queues[change.task_arn] = deque()
            self._waiting.put_nowait(change.task_arn)
        if len(queue) > 1 and queue[-1].status is change.status:  # the first may be on its way
            queue.pop()
        queue.append(change)

    async def serve(self, acknowledged: Acknowledged) -> None:
        """Send what is queued, until cancelled.

        `acknowledged` is awaited for each change that the control plane took, or refused for good.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                task_arn = await self._waiting.get()
                group.create_task(self._send_queue(task_arn, acknowledged))

    async def _send_queue(self, task_arn: str, acknowledged: Acknowledged) -> None:
        queue = self._queues[task_arn]
        while queue:
            change = queue[0]
            await self._submit(change)
            await acknowledged(change)
            self._sent[task_arn] = queue.popleft()
            if change.status is TaskStatus.STOPPED:
                del self._sent[task_arn]
        del self._queues[task_arn]

    async def _submit(self, change: StateChange) -> None:
        request = render_change(change)
        pauses_s = self._backoff.pauses_s()
        while True:
            _leave_out(self._refused, request)
            try:
                async with self._in_flight:
                    await self._control_plane.call("SubmitTaskStateChange", request)
            except ControlPlaneError as error:
                if refused := _find_refused(request, str(error)):
                    self._refused |= refused
                    continue
                if error.code in FINAL_ERRORS:
                    log.warning("the change of %s is refused: %s", change.task_arn, error)
                    return
                log.warning("the change of %s will be sent again: %s", change.task_arn, error)
            except ControlPlaneUnreachableError as error:
                log.warning("the change of %s will be sent again: %s", change.task_arn, error)
            else:
                return
            await asyncio.sleep(next(pauses_s))


def _leave_out(members: Iterable[str], request: dict[str, Any]) -> None:
    for shape in (request, *request.get("containers", ())):
        for member in members:
            shape.pop(member, None)


def _find_refused(request: dict[str, Any], text: str) -> set[str]:
    """Return the members of ours in a request that a refusal names."""
    sent = {member for shape in (request, *request.get("containers", ())) for member in shape}
    return {member for member in OURS & sent if f'"{member}"' in text}


def render_change(change: StateChange) -> dict[str, Any]:
    """Write a change as `SubmitTaskStateChange` wants it; pure."""
    return SubmitTaskStateChange(
        cluster=change.cluster_arn,
        task=change.task_arn,
        status=_accepted_status(change.status),
        reason=change.reason[:MAX_REASON_CHARS] if change.reason else None,
        stop_code=change.stop_code.value if change.stop_code else None,
        containers=_render_containers(change),
        attachments=tuple(
            AttachmentStateChange(attachment_arn=arn, status="ATTACHED") for arn in change.attached
        ),
        pull_started_at=change.pull_started_at,
        pull_stopped_at=change.pull_stopped_at,
        execution_stopped_at=change.execution_stopped_at,
        replacements=tuple(
            ReplacementChange(kind=one.kind, what=one.what, by=one.by)
            for one in change.replacements
        )
        or None,
    ).model_dump(mode="json", by_alias=True, exclude_none=True)


def _render_containers(change: StateChange) -> tuple[ContainerStateChange, ...]:
    return tuple(map(_render_container, change.containers))


def _render_container(container: ContainerFacts) -> ContainerStateChange:
    health = container.health
    return ContainerStateChange(
        container_name=container.name,
        status=container.status.value,
        exit_code=container.exit_code,
        image_digest=container.image_digest and container.image_digest[:MAX_FIELD_CHARS],
        reason=container.reason and container.reason[:MAX_REASON_CHARS],
        runtime_id=container.runtime_id[:MAX_FIELD_CHARS],
        health_status=None if health is None else health.status.value,
        health_status_since=None if health is None else health.since,
        restart_count=container.restart_count or None,
    )


def _accepted_status(status: TaskStatus) -> Any:  # noqa: ANN401 - a Literal mypy can't narrow to
    return status.value if status in (TaskStatus.RUNNING, TaskStatus.STOPPED) else "PENDING"


def _says_more(change: StateChange, last: StateChange) -> bool:
    """Whether a change is worth a call: STOPPING and DEPROVISIONING are never submitted."""
    if change.status in (TaskStatus.STOPPING, TaskStatus.DEPROVISIONING):
        return False
    return change.status.is_after(last.status) or (
        change.status is last.status and _render_containers(change) != _render_containers(last)
    )
