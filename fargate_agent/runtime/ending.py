"""How the first process of a container is brought to its end and taken away."""

import asyncio
import contextlib
import signal
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from fargate_agent.containerd.errors import NotFoundError
from fargate_agent.containerd.processes import ExitResult, Processes, ProcessStatus
from fargate_agent.drivers import ExitStatus
from fargate_agent.errors import TaskError
from fargate_agent.plan import ContainerPlan

DEFAULT_STOP_SIGNAL: Final = "SIGTERM"

KILL_DEADLINE_S: Final = 10.0
"""A process that has been killed is gone at once, unless it waits for a disk or a network mount."""


def parse_signal(name: str) -> int:
    """Return the number of `SIGQUIT`, `QUIT`, `3` or `SIGRTMIN+3`; that of SIGTERM if unknown."""
    text = name.upper().removeprefix("SIG")
    base, _, offset = text.partition("+")
    if text.isdigit():
        number = int(text)
    elif base == "RTMIN" and (not offset or offset.isdigit()):
        number = signal.SIGRTMIN + int(offset or 0)
    else:
        number = int(signal.Signals.__members__.get(f"SIG{text}", signal.SIGTERM))
    return number if 0 < number < signal.NSIG else int(signal.SIGTERM)


async def end_process(
    processes: Processes, container: ContainerPlan, stop_signal: int, status: ProcessStatus
) -> ExitResult:
    """Return when the first process has ended, and how.

    If it runs, it is sent `stop_signal`, and killed with all its children when its stop timeout is
    over. One that never started is killed at once.

    Raises:
        ContainerdError: it could not be ended.
        TimeoutError: it was killed, and still did not end.
    """
    if status is ProcessStatus.STOPPED:
        return await processes.wait(container.id)
    if status is not ProcessStatus.CREATED:
        await _signal(processes, container.id, stop_signal)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(container.stop_timeout_s):
                return await processes.wait(container.id)
    await _signal(processes, container.id, signal.SIGKILL, everyone=True)
    try:
        async with asyncio.timeout(KILL_DEADLINE_S):
            return await processes.wait(container.id)
    except TimeoutError:
        raise TimeoutError(f"it still runs {KILL_DEADLINE_S:g} s after SIGKILL") from None


def note_failure(status: ExitStatus | None, failure: TaskError) -> ExitStatus:
    """Say that a container had to be ended by force, and by what signal if nobody knows better."""
    killed = ExitStatus(code=128 + signal.SIGKILL, at=datetime.now(UTC))
    return replace(status or killed, stop_failed=failure.reason)


async def _signal(
    processes: Processes, container_id: str, number: int, *, everyone: bool = False
) -> None:
    """Send a signal; a process that has just ended needs none."""
    with contextlib.suppress(NotFoundError):
        await processes.kill(container_id, number, everyone=everyone)
