"""A file that holds a file system: made, and mounted by a loop device that clears itself.

All functions block.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fargate_agent.volumes.file_system_programs import find_program, run_program
from fargate_agent.volumes.loop import attach
from fargate_agent.volumes.mounts import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    DetachedMount,
    is_listed,
    make_mount,
    unmount,
)

MKFS_TIMEOUT_S: Final = 60.0
"""A sparse file of 200 GiB takes 22 ms, a file system of 16 TiB a few seconds."""
_SHUTDOWN: Final = 0x8004587D
_SHUTDOWN_NOLOGFLUSH: Final = 2
"""What is not written yet never is. Source: Linux, fs/ext4/ext4.h, `EXT4_IOC_SHUTDOWN`;
fs/xfs/libxfs/xfs_fs.h, `XFS_IOC_GOINGDOWN`, which has the same number."""
_NO_SUCH_IOCTL: Final = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO})


_libc = ctypes.CDLL(None, use_errno=True)


def find_mkfs(filesystem: str) -> str | None:
    """Return the path of the program that makes a file system, e.g. `ext4`; None: not installed."""
    return find_program(f"mkfs.{filesystem}")


def make_file_system(
    file: int, filesystem: str, arguments: Iterable[str] = (), timeout_s: float = MKFS_TIMEOUT_S
) -> None:
    """Make a file system in an open file, which may be without a name.

    `arguments` are those of `mkfs.<filesystem>` before the file.

    Raises:
        NoProgramError: the program isn't installed.
        OSError: it failed, or took too long; the text has what it said.
    """
    path = f"/proc/self/fd/{file}"
    run_program(f"mkfs.{filesystem}", (*arguments, path), timeout_s=timeout_s, file=file)


def mount_file(
    file: int, filesystem: str, *, flags: Iterable[str] = (), read_only: bool = False
) -> tuple[DetachedMount, bool]:
    """Mount the file system in an open file, without a place; say whether with direct I/O.

    Nothing set-uid and no device works on the mount. `flags` are options of the file system, e.g.
    `discard`. The loop device lives as long as the mount.

    Raises:
        NoLoopDevicesError: this machine gives no loop device.
        OSError: the kernel refused the file system.
    """
    attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID
    attributes |= MOUNT_ATTR_RDONLY if read_only else 0
    options = [*flags, *(["ro"] if read_only else [])]
    with attach(file, read_only=read_only) as device:
        mount = make_mount(filesystem, device.path, flags=options, attributes=attributes)
        return mount, device.is_direct


def mount_disk(
    path: Path,
    filesystem: str,
    mountpoint: Path,
    *,
    flags: Iterable[str] = (),
    read_only: bool = False,
) -> None:
    """Have a file with a name mounted on a directory, which is there; do nothing if it is.

    Two mounts of one file would destroy it, in one mount namespace as in two: the caller keeps
    others away.

    Raises:
        NoLoopDevicesError: this machine gives no loop device.
        OSError: it can't be opened or mounted.
    """
    if is_listed(mountpoint):  # one that is shut down may answer no stat
        return
    access = os.O_RDONLY if read_only else os.O_RDWR
    file = os.open(path, access | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        mount, _ = mount_file(file, filesystem, flags=flags, read_only=read_only)
    finally:
        os.close(file)
    try:
        mount.place(mountpoint)
    finally:
        mount.close()


def shut_down(mountpoint: Path) -> None:
    """Have a file system drop what it has not written, and answer only errors from then on."""
    try:
        descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EIO:  # it is shut down, or its disk is gone
            raise
        return
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _SHUTDOWN_NOLOGFLUSH))
    except OSError as error:
        if error.errno not in _NO_SUCH_IOCTL:  # another file system, or it is shut down
            raise
    finally:
        os.close(descriptor)


def sync_disk(mountpoint: Path) -> None:
    """Write what is in memory to the disk.

    Raises:
        OSError: it can't be written, or an earlier write failed that nobody was told of.
    """
    descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(mountpoint))
    finally:
        os.close(descriptor)


def unmount_disk(mountpoint: Path) -> None:
    """Write what is in memory to the disk, and take the mount away; nothing mounted is fine.

    Raises:
        OSError: the kernel refused it.
    """
    unmount(mountpoint)
