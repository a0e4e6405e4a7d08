"""Whether an image has the program that a container's init is to run.

Without an init runC looks for it. An init says only that it found nothing, and not under what name.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from fargate_agent.containerd.types import Mount
from fargate_agent.drivers import ImageConfig
from fargate_agent.errors import CannotStartContainerError
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.rootfs import look_into
from fargate_agent.runtime.spec import plan_args, plan_directory, plan_environment

_NOT_THE_IMAGES: Final = ("/dev", "/proc", "/sys")


async def check_program(
    task: TaskPlan, container: ContainerPlan, image: ImageConfig, mounts: Sequence[Mount]
) -> None:
    """Return if the program will be found, as far as the image tells.

    What may be in a volume, a tmpfs or a directory of the kernel is taken to be there.

    Raises:
        CannotCreateContainerError: neither the task nor the image says what to run.
        CannotStartContainerError: it won't be found; the text is that of runC.
        OSError: the image can't be mounted.
    """
    name = plan_args(container, image)[0]
    directory = plan_directory(container, image)
    variables = (v.partition("=") for v in plan_environment(task, container, image))
    path = next(value for variable, _, value in variables if variable == "PATH")
    volumes = [mount.destination for mount in container.mounts]
    hidden = [*_NOT_THE_IMAGES, *volumes, *(tmpfs.destination for tmpfs in container.tmpfs)]
    fault = await look_into(
        mounts, task.directory, lambda: _find_fault(name, path, directory, hidden)
    )
    if fault is not None:
        raise CannotStartContainerError(f'exec: "{name}": {fault}', container=container.name)


def _find_fault(name: str, path: str, directory: str, hidden: Sequence[str]) -> str | None:
    """Say why a program can't be run in the root file system that this thread is in.

    Source: Go, os/exec/lp_unix.go, whose texts runC has.
    """
    if "/" in name:
        return _judge(os.path.join(directory, name), name, hidden)  # noqa: PTH118 - of the image
    faults = {_judge(os.path.join(directory, one, name), name, hidden) for one in path.split(":")}  # noqa: PTH118 - as above
    return None if None in faults else "executable file not found in $PATH"


def _judge(file: str, name: str, hidden: Sequence[str]) -> str | None:
    real = PurePosixPath(os.path.realpath(file))
    if any(map(real.is_relative_to, hidden)):
        return None
    try:
        mode = os.stat(real).st_mode  # noqa: PTH116 - of the image
    except OSError as error:
        return f"stat {name}: {(error.strerror or str(error)).lower()}"
    if stat.S_ISDIR(mode):
        return "is a directory"
    return None if mode & 0o111 else "permission denied"
