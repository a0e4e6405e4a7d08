"""What a logger needs of the machine, and what it says when it can't work.

A logger that ends before it is ready counts as ready with containerd before 2.3, so what it has
written to a file is the only sign. Source: containerd, pkg/process/io_util.go.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
