"""How the first process of a container is brought to its end and taken away."""

import asyncio
import signal
from typing import Final

from fargate_agent.containerd.errors import NotFoundError
from fargate_agent.containerd.processes import ExitResult, Processes, ProcessStatus

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
    processes: Processes, container_id: str, stop_signal: int, grace_s: float
) -> ExitResult | None:
    """Return when the process has ended; None if it never started, or is not there.

    It is sent `stop_signal`, and killed with all its children after `grace_s`.

    Raises:
        ContainerdError: it could not be ended.
        TimeoutError: it was killed, and still did not end.
    """
    try:
        process = await processes.get(container_id)
        if process.status is ProcessStatus.CREATED:
            await _kill(processes, container_id)
            return None
        if process.status is not ProcessStatus.STOPPED:
            await _signal(processes, container_id, stop_signal)
            try:
                async with asyncio.timeout(grace_s):
                    return await processes.wait(container_id)
            except TimeoutError:
                return await _kill(processes, container_id)
        return await processes.wait(container_id)
    except NotFoundError:
        return None


async def _kill(processes: Processes, container_id: str) -> ExitResult:
    await _signal(processes, container_id, signal.SIGKILL, everyone=True)
    async with asyncio.timeout(KILL_DEADLINE_S):
        return await processes.wait(container_id)


async def _signal(
    processes: Processes, container_id: str, number: int, *, everyone: bool = False
) -> None:
    """Send a signal; a process that has just ended needs none."""
    try:
        await processes.kill(container_id, number, everyone=everyone)
    except NotFoundError:
        return
