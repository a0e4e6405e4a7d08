"""What a logger needs of the machine, and what it says when it can't work.

A logger that ends before it is ready counts as ready with containerd before 2.3, so what it has
written to a file is the only sign. Source: containerd, pkg/process/io_util.go.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fargate_agent.containerd.host_paths import hide_host_paths
from fargate_agent.drivers import LoggerUser
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.cgroupdriver import CgroupDriver, CgroupDrivers

END_DEADLINE_S: Final = 12.0
"""As the shim has it. Source: containerd, pkg/process/io.go, `binaryIOProcTermTimeout`."""
END_PAUSE_S: Final = 0.02
MAX_FAULT_BYTES: Final = 4096
"""More than a reason may have."""


def make_directories(task: TaskPlan, user: LoggerUser | None) -> None:
    """Make the directories that the loggers of a task write to; blocks.

    Raises:
        OSError: the disk is full, or the like.
    """
    for directory in {task.logs_dir, *(one.log_fault_path.parent for one in task.containers)}:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        if user is not None:
            os.chown(directory, user.uid, user.gid)


@asynccontextmanager
async def hold_group(driver: CgroupDriver, container: ContainerPlan) -> AsyncIterator[str]:
    """Have a control group for the shim and the logger of a container while the body runs.

    Raises:
        OSError: the kernel or systemd refused.
    """
    group = driver.hold_loggers(container.cgroup)
    path = await asyncio.to_thread(group.__enter__)
    try:
        yield path
    finally:
        await asyncio.to_thread(group.__exit__, None, None, None)


async def wait_for_end(cgroups: CgroupDrivers, container: ContainerPlan) -> None:
    """Return when the logger of a container that is gone has ended, or had time enough for it."""
    path = container.cgroup
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_DEADLINE_S):
            while await asyncio.to_thread(lambda: cgroups.of(path).find_loggers(path)):  # noqa: ASYNC110 - the kernel doesn't tell
                await asyncio.sleep(END_PAUSE_S)


def is_logger(log_uri: str) -> bool:
    """Whether output that goes there is read by a program. Source: containerd, cio, `BinaryIO`."""
    return log_uri.startswith("binary:")


async def wait_for_loss(cgroups: CgroupDrivers, container: ContainerPlan) -> None:
    """Return when the logger of a container has ended; at once if there is none."""
    logger = await asyncio.to_thread(_open_logger, cgroups, container.cgroup)
    if logger is None:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(logger, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(logger)
        os.close(logger)


def _open_logger(cgroups: CgroupDrivers, path: str) -> int | None:
    """Return a file descriptor of the logger's process; see pidfd_open(2)."""
    pid = _find_logger(cgroups, path)
    if pid is None:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if pid == _find_logger(cgroups, path):  # and not another process that has its number now
        return descriptor
    os.close(descriptor)
    return None


def _find_logger(cgroups: CgroupDrivers, path: str) -> int | None:
    """Return the process id of the logger: of the shim's children in their group, the eldest.

    The others are those by which the shim calls runC. The shim is who has no parent there.
    """
    pids = cgroups.of(path).find_loggers(path)
    found = {pid: status for pid in pids if (status := _read_status(pid))}
    shims = {pid for pid, (parent, _) in found.items() if parent not in pids}
    children = {pid: began for pid, (parent, began) in found.items() if parent in shims}
    return min(children, key=lambda pid: (children[pid], pid), default=None)


def _read_status(pid: int) -> tuple[int, int] | None:
    """Return the parent of a process and when it began; None if it has gone.

    Source: proc(5), stat: ppid and starttime.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def check_logger(container: ContainerPlan) -> None:
    """Return if the logger of a container that was created works; blocks.

    The file stays where it is: whoever asks again is told again, until the task is taken away.
    A link isn't followed, and a pipe not waited for: the directory may be that of `logger_user`.

    Raises:
        ResourceInitializationError: it doesn't; the text is that of Fargate.
    """
    try:
        with open(container.log_fault_path, errors="replace", opener=_open_file) as file:
            text = file.read(MAX_FAULT_BYTES).strip()
    except OSError:
        return
    text = hide_host_paths(text.replace(str(container.log_path.parent), "the task's logs"))
    # Source: ECS developer guide, stopped task error messages.
    raise ResourceInitializationError(
        f"failed to validate logger args: {text} : exit status 1", container=container.name
    )


def _open_file(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
