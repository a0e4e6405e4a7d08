"""The files of containers that are texts or secrets, in a tmpfs of their task.

It is mounted below the task's directory, which only root may enter, and each file of it is mounted
alone into its container, for reading. So they are never on a disk, take no more room than the tmpfs
has, are there when the container is restarted, by whichever agent, and are gone with the task or
with a reboot. Its pages count for the agent, which writes them, not for the task.

All functions block.
"""

import ctypes
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fargate_agent.errors import CannotCreateContainerError, ResourceInitializationError
from fargate_agent.files import replace_file
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.users import ContainerUser
from fargate_agent.trees import remove_tree

DIRECTORY: Final = "secret-files"
"""Where the tmpfs is mounted, below the task's directory."""

SIZE_MIB: Final = 64
"""More than a task definition can ask for: in its 64 KiB it has room for some 600 labels, and a
secret has 64 KiB at most. Source: ECS and Secrets Manager, quotas."""
MAX_INODES: Final = 4096

SECRET_MODE: Final = 0o400
"""Of the container's user."""
TEXT_MODE: Final = 0o444
"""Of root: what stands in a task definition is no secret, and programs that give up their rights
read their configuration later."""

_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
"""Source: linux/mount.h, umount(2)."""

_libc = ctypes.CDLL(None, use_errno=True)


def ensure_tmpfs(task: TaskPlan) -> None:
    """Have the tmpfs, if a container of the task has a file; its directory must be there.

    Raises:
        ResourceInitializationError: this machine can't mount one.
    """
    if not any(container.files for container in task.containers):
        return
    mountpoint = task.directory / DIRECTORY
    try:
        mountpoint.mkdir(mode=0o700, exist_ok=True)
        if not os.path.ismount(mountpoint):
            _mount(mountpoint)
    except OSError as error:
        raise ResourceInitializationError(
            "unable to mount a tmpfs for the files that labels of a container ask for: "
            f"{error.strerror or error}"
        ) from error


def remove_tmpfs(task_directory: Path) -> None:
    """Remove the tmpfs of a task with all that is in it; do nothing if there is none.

    What is in it goes first: a program that has the mount in a mount namespace of its own would
    keep it.

    Raises:
        OSError: it couldn't be unmounted.
    """
    mountpoint = task_directory / DIRECTORY
    if not os.path.ismount(mountpoint):
        return
    for directory in list(mountpoint.iterdir()):
        remove_tree(directory)
    _check(_libc.umount2(os.fsencode(mountpoint), _MNT_DETACH | _UMOUNT_NOFOLLOW), mountpoint)


def write_files(task: TaskPlan, container: ContainerPlan, user: ContainerUser) -> None:
    """Write the files of a container that is about to be made; each is replaced as a whole.

    Raises:
        CannotCreateContainerError: there is no room for them, or the tmpfs is gone.
    """
    if not container.files:
        return
    try:
        if not os.path.ismount(task.directory / DIRECTORY):  # never on a disk
            raise FileNotFoundError(errno.ENOENT, "the tmpfs for them is not mounted")
        place_of(task, container, 0).parent.mkdir(mode=0o700, exist_ok=True)
        for number, file in enumerate(container.files):
            is_secret = file.reference is not None
            replace_file(
                place_of(task, container, number),
                container.file_contents[file.destination] if is_secret else file.text,
                mode=SECRET_MODE if is_secret else TEXT_MODE,
                owner=(user.uid, user.gid) if is_secret else (0, 0),
                durable=False,
            )
    except OSError as error:
        raise CannotCreateContainerError(
            f"unable to write the files that labels of the container ask for: {error.strerror}",
            container=container.name,
        ) from error


def find_sources(task: TaskPlan, container: ContainerPlan) -> Mapping[str, Path]:
    """Return the files on the host by their paths in the container."""
    return {
        file.destination: place_of(task, container, number)
        for number, file in enumerate(container.files)
    }


def place_of(task: TaskPlan, container: ContainerPlan, number: int) -> Path:
    """Return where one of a container's files is on the host."""
    return task.directory / DIRECTORY / container.name / str(number)


def _mount(mountpoint: Path) -> None:
    """Mount a tmpfs that is never swapped out, where the kernel can keep it from that (6.4)."""
    options = f"size={SIZE_MIB}m,nr_inodes={MAX_INODES},mode=0700"
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC

    def mount(data: str) -> int:
        where = os.fsencode(mountpoint)
        return int(_libc.mount(b"tmpfs", where, b"tmpfs", flags, data.encode()))

    result = mount(f"{options},noswap")
    if result != 0 and ctypes.get_errno() == errno.EINVAL:
        result = mount(options)
    _check(result, mountpoint)


def _check(result: int, path: Path) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
