"""How the first process of a container is brought to its end and taken away."""

import asyncio
import contextlib
import logging
import signal
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError, NotFoundError
from fargate_agent.containerd.processes import ExitResult, Processes, ProcessStatus
from fargate_agent.drivers import ExitStatus
from fargate_agent.errors import TaskError
from fargate_agent.plan import ContainerPlan
from fargate_agent.runtime import loggers
from fargate_agent.runtime.cgroupdriver import CgroupDrivers
from fargate_agent.runtime.logger_replacement import wait_for_rest
from fargate_agent.runtime.oom import has_oom_kills
from fargate_agent.runtime.records import STOP_SIGNAL_LABEL

log = logging.getLogger(__name__)

DEFAULT_STOP_SIGNAL: Final = "SIGTERM"

MADE: Final = frozenset({ProcessStatus.CREATED, ProcessStatus.RUNNING, ProcessStatus.STOPPED})
"""How a process is that containerd can start, end and delete."""

KILL_DEADLINE_S: Final = 10.0
"""A process that has been killed is gone at once, unless it waits for a disk or a network mount."""

UNKNOWN_PATIENCE_S: Final = 45.0
"""containerd calls a process unknown while its shim doesn't answer within 2 s, as one that waits up
to 30 s for the streams of an exec. Source: containerd, services/tasks/local.go, `stateTimeout`."""
UNKNOWN_PAUSE_S: Final = 0.1


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


async def is_made(processes: Processes, container_id: str) -> bool:
    """Whether a container has a first process, be it one that has ended.

    Waits for a shim that doesn't answer. One whose creation was cut off is given up after a while.

    Raises:
        ContainerdError: containerd didn't say.
    """
    try:
        async with asyncio.timeout(UNKNOWN_PATIENCE_S):
            process = await processes.get(container_id)
            while process.status is ProcessStatus.UNKNOWN:
                await asyncio.sleep(UNKNOWN_PAUSE_S)
                process = await processes.get(container_id)
    except (TimeoutError, NotFoundError):
        return False
    return process.status in MADE


async def end_container(
    containerd: Containerd, cgroups: CgroupDrivers, container: ContainerPlan
) -> ExitStatus | None:
    """Return when no process of the container runs; None if it never started, or isn't known.

    Nor is one known that has ended, and is being cleared away.

    Raises:
        ContainerdError: it could not be ended.
        OSError: something of it still runs.
    """
    try:
        record = await containerd.containers.get(container.id)
    except NotFoundError:
        return None
    status = None
    with contextlib.suppress(NotFoundError):
        status = (await containerd.processes.get(container.id)).status
    if status not in MADE:
        # its shim was killed, or its creation given up: one whose shim containerd doesn't know
        await end_by_force(containerd, cgroups, container)
        return None
    stop_signal = parse_signal(record.labels.get(STOP_SIGNAL_LABEL, DEFAULT_STOP_SIGNAL))
    try:
        result = await end_process(containerd.processes, container, stop_signal, status)
    except NotFoundError:
        if status is ProcessStatus.RUNNING:
            raise
        # a restart was interrupted that had begun to clear away the run before
        await end_by_force(containerd, cgroups, container)
        return None
    if status is ProcessStatus.CREATED:
        return None
    return await read_exit(containerd, cgroups, container, result)


async def end_by_force(
    containerd: Containerd, cgroups: CgroupDrivers, container: ContainerPlan
) -> None:
    """Return when no process of the container is left, nor its shim and its logger.

    Without its shim nobody else knows which processes are the container's but the kernel.

    Raises:
        ContainerdError: something is still there.
        OSError: a process is, after a while.
    """
    try:
        await containerd.processes.force_delete(container.id)
    finally:
        await asyncio.to_thread(cgroups.kill, container.cgroup, KILL_DEADLINE_S)
    await loggers.wait_for_end(cgroups, container)


async def delete_process(
    containerd: Containerd, cgroups: CgroupDrivers, container: ContainerPlan
) -> None:
    """Return when the first process, which has ended, is removed, and its logger has ended too.

    Raises:
        ContainerdError: it still runs.
        OSError: the kernel refused.
    """
    with contextlib.suppress(NotFoundError):
        await containerd.processes.delete(container.id)
    await wait_for_rest(cgroups, container)


async def clear_ended(
    containerd: Containerd, cgroups: CgroupDrivers, container: ContainerPlan
) -> bool:
    """Remove the ended process of a container, its shim and its logger, so that another follows.

    Return whether that could be done in the ordinary way; else something may be left.
    """
    try:
        await delete_process(containerd, cgroups, container)
    except ContainerdError as error:
        log.warning("container %s is cleared away by force: %s", container.name, error)
        return False
    return True


async def read_exit(
    containerd: Containerd, cgroups: CgroupDrivers, container: ContainerPlan, result: ExitResult
) -> ExitStatus:
    """Say how a container ended.

    One that lost a process to the kernel, and yet ended well, was not killed.
    """
    oom_killed = result.code != 0 and await has_oom_kills(containerd, cgroups, container)
    return ExitStatus(code=result.code, at=result.at, oom_killed=oom_killed)


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
