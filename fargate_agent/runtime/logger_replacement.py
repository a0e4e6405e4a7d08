"""A logger that ends while its container runs: another one takes its place, once.

The pipes of a container break when nobody reads them any more: its next write fails. So the agent
holds their read ends as well, as long as it watches the logger. It never reads. When the logger
ends they are given to another one, which finds what the pipes hold and goes on where the first one
was: in the same file, in the same stream. What that one had read, and not written, is lost.

The shim knows nothing of the other logger, and doesn't wait for it: `wait_for_rest` does.
Source: containerd, pkg/process/io.go, which closes the shim's read ends when the logger is ready.
"""

import asyncio
import fcntl
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan
from fargate_agent.runtime import logger_start
from fargate_agent.runtime.cgroupdriver import CgroupDrivers
from fargate_agent.runtime.logger_processes import find_logger, open_logger
from fargate_agent.runtime.loggers import check_logger, wait_for_end

log = logging.getLogger(__name__)

START_DEADLINE_S: Final = 20.0
"""For an interpreter to come up on a machine that is out of processors."""

READY_DEADLINE_S: Final = 60.0
"""For the logger to reach its destination; meanwhile the container's output waits in its pipes."""

_T = TypeVar("_T")

_LEAST_FD: Final = 10
"""Above those that a logger has."""


class _NotReplacedError(Exception):
    """Nothing takes the place of a logger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A logger that runs, and what another one needs to take its place."""

    process: int
    """A file descriptor; see pidfd_open(2)."""
    pipes: tuple[int, ...]
    """The read ends of stdout and stderr; empty if they can't be had, or aren't wanted again."""
    directory: str
    groups: tuple[Path, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self.process, *self.pipes):
            os.close(descriptor)


async def watch_logger(
    cgroups: CgroupDrivers,
    container: ContainerPlan,
    namespace: str,
    find_log_uri: Callable[[], Awaitable[str | None]],
) -> None:
    """Return when the output of a container is lost for good; at once if it has no logger.

    `find_log_uri` tells what logs the container, or None if that has ended meanwhile.

    Raises:
        OSError: the kernel refused.
    """
    held = await _to_the_end(lambda: _hold(cgroups, container), lambda held: _close(held))
    if held is None:
        return
    with held:
        await _readable(held.process)
        log_uri = await find_log_uri() if held.pipes else None
        if log_uri is None:
            return
        try:
            await _replace(cgroups, container, held, log_uri, namespace)
        except (_NotReplacedError, OSError, subprocess.SubprocessError) as error:
            log.warning("container %s: no logger takes the place of the one that ended: %s",
                        container.name, error)  # fmt: skip
            return
    log.warning(
        "container %s: its logger has ended before it, and another one takes its place; what the "
        "first one had in hands is lost",
        container.name,
    )
    await watch_logger(cgroups, container, namespace, find_log_uri)


async def wait_for_rest(cgroups: CgroupDrivers, container: ContainerPlan) -> None:
    """Return when a logger that the shim doesn't wait for has ended, or had time enough for it.

    That is one that took the place of another, or has a terminal to read. The container is gone.

    Raises:
        OSError: the kernel refused.
    """
    found = await asyncio.to_thread(find_logger, cgroups, container)
    if container.terminal or (found is not None and found.in_place):
        await wait_for_end(cgroups, container)


def parse_log_uri(uri: str) -> list[str]:
    """Return the command line that a log URI means to the shim.

    Source: containerd, pkg/process/io_util.go, `NewBinaryCmd`: of each key the first value counts.
    """
    parts = urlsplit(uri)
    flags: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        flags.setdefault(name, value)
    return [unquote(parts.path), *(text for pair in flags.items() for text in pair)]


def _hold(cgroups: CgroupDrivers, container: ContainerPlan) -> _Held | None:
    """Hold the logger of a container, if it has one.

    Of one that took the place of another only the process: it is not replaced again.
    """
    found = open_logger(cgroups, container)
    if found is None:
        return None
    logger, process = found
    pipes: list[int] = []
    directory, groups = "", tuple[Path, ...]()
    if not logger.in_place:
        try:
            directory = str(Path(f"/proc/{logger.pid}/cwd").readlink())
            groups = cgroups.cgroups.find_groups(logger.pid)
            for number in (logger_start.FIRST, logger_start.FIRST + 1):
                pipes += [_open_pipe(f"/proc/{logger.pid}/fd/{number}")]
        except OSError as error:
            log.info("the pipes of container %s can't be held: %s", container.name, error)
            for pipe in pipes:
                os.close(pipe)
            pipes.clear()
    return _Held(process=process, pipes=tuple(pipes), directory=directory, groups=groups)


def _open_pipe(path: str) -> int:
    """Open one more read end of a pipe, with flags of its own."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no pipe")
    os.set_blocking(descriptor, True)
    return descriptor


def _close(held: _Held | None) -> None:
    if held is not None:
        held.__exit__()


async def _replace(
    cgroups: CgroupDrivers, container: ContainerPlan, held: _Held, log_uri: str, namespace: str
) -> None:
    """Return when another logger is ready.

    Raises:
        _NotReplacedError: it isn't, and doesn't run.
        OSError: the kernel refused.
        subprocess.SubprocessError: it could not be started.
    """
    environment = {"CONTAINER_ID": container.id, "CONTAINER_NAMESPACE": namespace}
    ready = await _to_the_end(lambda: _start(held, log_uri, environment), os.close)
    try:
        async with asyncio.timeout(READY_DEADLINE_S):
            await _readable(ready)
        if os.read(ready, 1):
            return
        fault = await asyncio.to_thread(_take_fault, container)
    except TimeoutError:
        fault = f"it isn't ready after {READY_DEADLINE_S:g} s"
    finally:
        os.close(ready)
    await asyncio.to_thread(_kill, cgroups, container)
    raise _NotReplacedError(fault)


def _start(held: _Held, log_uri: str, environment: dict[str, str]) -> int:
    """Start a logger in the place of another; return the pipe by which it says that it is ready."""
    ready, notice = os.pipe2(os.O_CLOEXEC)
    sources: list[int] = []
    try:
        # `ready` too, so that the logger can tell it to nobody, should the agent end before.
        for descriptor in (*held.pipes, notice, ready):
            sources += [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LEAST_FD)]
        subprocess.run(  # noqa: S603 - a program of ours
            [
                *(sys.executable, "-I", "-S", logger_start.__file__),
                *(held.directory, ",".join(map(str, sources)), *map(str, held.groups)),
                *("--", *parse_log_uri(log_uri)),
            ],
            env=environment,
            pass_fds=sources,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_DEADLINE_S,
            check=True,
        )
    except BaseException:
        os.close(ready)
        raise
    finally:
        for descriptor in (notice, *sources):
            os.close(descriptor)
    return ready


def _kill(cgroups: CgroupDrivers, container: ContainerPlan) -> None:
    """Kill the logger that took the place of another, if it runs."""
    if (found := open_logger(cgroups, container)) is None:
        return
    logger, process = found
    try:
        if logger.in_place:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)


def _take_fault(container: ContainerPlan) -> str:
    """Return why a logger can't work, and forget it: the container has been started."""
    try:
        check_logger(container)
    except ResourceInitializationError as error:
        container.log_fault_path.unlink(missing_ok=True)
        return error.detail
    return "it ended before it was ready"


async def _readable(descriptor: int) -> None:
    """Return when there is something to read; of a process, when it has ended."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)


async def _to_the_end(function: Callable[[], _T], undo: Callable[[_T], None]) -> _T:
    """Run what blocks in a thread; who is cancelled meanwhile waits for its end, and undoes it."""
    job = asyncio.get_running_loop().run_in_executor(None, function)
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait({job})
        if not job.cancelled() and job.exception() is None:
            undo(job.result())
        raise
