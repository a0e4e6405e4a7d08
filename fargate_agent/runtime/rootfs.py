"""A look into a root file system that nobody has mounted yet.

It is mounted and entered by a thread of its own, which has its own mount namespace and its own
root directory: links in the image lead nowhere else, nobody else sees the mount, and it is gone
with the thread, however that ends.
"""

import asyncio
import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from fargate_agent.containerd.types import Mount

MAX_FILE_BYTES: Final = 1 << 20
"""A user database that is longer is cut here; an image must not fill the agent's memory."""

_CLONE_FS: Final = 0x200
_CLONE_NEWNS: Final = 0x20000
"""Source: linux/sched.h."""

_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_REC: Final = 0x4000
_MS_SLAVE: Final = 0x80000
"""Source: linux/mount.h."""

_libc = ctypes.CDLL(None, use_errno=True)


async def read_files(
    mounts: Sequence[Mount], mountpoint: Path, names: Iterable[str]
) -> dict[str, str]:
    """Return the text of files of a fresh root file system; empty for those it doesn't have.

    `mountpoint` is any directory of the host; nothing happens to it.

    Raises:
        OSError: it can't be mounted.
    """
    wanted = tuple(names)
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rootfs")
    try:
        return await asyncio.get_running_loop().run_in_executor(
            executor, lambda: _read_in_this_thread(mounts, mountpoint, wanted)
        )
    finally:
        executor.shutdown(wait=False)


def _read_in_this_thread(
    mounts: Sequence[Mount], mountpoint: Path, names: tuple[str, ...]
) -> dict[str, str]:
    _check(_libc.unshare(_CLONE_FS | _CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "make mounts private")
    os.chroot(_mount(mounts[-1], mountpoint))
    os.chdir("/")
    return {name: _read(name) for name in names}


def _mount(mount: Mount, mountpoint: Path) -> Path:
    """Return where the root file system can be read.

    What a container would write is left out: no two mounts may share an upper directory.
    """
    if "bind" in mount.options or "rbind" in mount.options:
        return Path(mount.source)
    options = [o for o in mount.options if not o.startswith(("upperdir=", "workdir="))]
    lower = next((o.partition("=")[2] for o in options if o.startswith("lowerdir=")), None)
    if mount.type == "overlay" and lower and ":" not in lower:
        return Path(lower)
    data = ",".join(option for option in options if option not in {"ro", "rw"})
    _check(
        _libc.mount(
            mount.source.encode(),
            bytes(mountpoint),
            mount.type.encode(),
            _MS_RDONLY | _MS_NOSUID | _MS_NODEV,
            data.encode(),
        ),
        "mount",
    )
    return mountpoint


def _read(name: str) -> str:
    """Read a regular file; an image may hold a pipe or a device of this name."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}:
            return ""
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES).decode(errors="replace")
    finally:
        os.close(handle)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
