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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from fargate_agent.containerd.types import Mount
from fargate_agent.errors import CannotCreateContainerError

MAX_FILE_BYTES: Final = 1 << 20
"""Largest user database that is read; an image must not fill the agent's memory."""

GIVE_UP_S: Final = 10.0
"""How long a look that is given up is waited for."""

_MOUNTED: Final = frozenset({"dev", "proc", "sys"})
"""Directories of an image that are hidden in every container by a mount; see `runtime/spec.py`."""

_KINDS: Final[Mapping[str, Callable[[int], bool]]] = {
    "a directory": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a character device": stat.S_ISCHR,
    "a block device": stat.S_ISBLK,
}

_CLONE_FS: Final = 0x200
_CLONE_NEWNS: Final = 0x20000
"""Source: linux/sched.h."""

_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_REC: Final = 0x4000
_MS_SLAVE: Final = 0x80000
"""Source: linux/mount.h."""

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


async def read_files(
    mounts: Sequence[Mount], mountpoint: Path, names: Iterable[str]
) -> dict[str, str]:
    """Return the text of files of a fresh root file system; empty for those it doesn't have.

    `mountpoint` is any directory of the host; nothing happens to it.

    Raises:
        CannotCreateContainerError: one of them isn't a regular file, or is too large.
        OSError: it can't be mounted.
    """
    wanted = tuple(names)
    return await look_into(mounts, mountpoint, lambda: {name: _read(name) for name in wanted})


async def look_into(
    mounts: Sequence[Mount],
    mountpoint: Path,
    look: Callable[[], T],
    give_up: Callable[[], None] = lambda: None,
) -> T:
    """Call a function whose root directory is that of a fresh root file system.

    `mountpoint` is any directory of the host; nothing happens to it. When this is cancelled it
    calls `give_up`, and waits for a moment for the function to end.

    Raises:
        OSError: it can't be mounted.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rootfs")
    looking = asyncio.get_running_loop().run_in_executor(
        executor, lambda: _look_in_this_thread(mounts, mountpoint, look)
    )
    try:
        return await asyncio.shield(looking)
    except asyncio.CancelledError:
        give_up()
        done, _ = await asyncio.wait({looking}, timeout=GIVE_UP_S)
        if done:
            looking.exception()  # nobody wants to know
        raise
    finally:
        executor.shutdown(wait=False)


def _look_in_this_thread(mounts: Sequence[Mount], mountpoint: Path, look: Callable[[], T]) -> T:
    _check(_libc.unshare(_CLONE_FS | _CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "make mounts private")
    os.chroot(_mount(mounts[-1], mountpoint))
    os.chdir("/")
    return look()


def _mount(mount: Mount, mountpoint: Path) -> Path:
    """Return where the root file system can be read.

    What a container would write is left out: no two mounts may share an upper directory.
    """
    if "bind" in mount.options or "rbind" in mount.options:
        return Path(mount.source)
    options = [o for o in mount.options if not o.startswith(("upperdir=", "workdir="))]
    lower = next((o.partition("=")[2] for o in options if o.startswith("lowerdir=")), "")
    layers = lower.split(":") if mount.type == "overlay" and lower else []
    if len(layers) == 1:
        return Path(lower)
    if layers:
        options = [o for o in options if not o.startswith("lowerdir=")]
        options.append(f"lowerdir={':'.join(_enter_common_directory(layers))}")
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


def _enter_common_directory(layers: Sequence[str]) -> list[str]:
    """Change into the directory that the layers have in common, and return their names there.

    The options of a mount are one page at most, which whole paths of some 50 layers fill.
    Source: mount(2).
    """
    common = os.path.commonpath(layers)
    os.chdir(common)
    return [os.path.relpath(layer, common) for layer in layers]


def _read(name: str) -> str:
    """Read a regular file. Whatever else has this name would keep the reader waiting, runC too."""
    try:
        found = os.stat(name)  # noqa: PTH116 - a path of the image, not of the host
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _refuse(name, "is a link that leads back to itself") from error
    target = os.path.realpath(name)
    if target.split("/")[1] in _MOUNTED:
        raise _refuse(name, f"is a link to {target}, which is not part of the image")
    if found is None:
        return ""
    if not stat.S_ISREG(found.st_mode):
        kind = next(kind for kind, is_it in _KINDS.items() if is_it(found.st_mode))
        raise _refuse(name, f"is {kind}, not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        raise _refuse(name, f"has {found.st_size} bytes; the limit is {MAX_FILE_BYTES}")
    with open(name, "rb") as file:  # noqa: PTH123 - as above
        return file.read(MAX_FILE_BYTES).decode(errors="replace")


def _refuse(name: str, what: str) -> CannotCreateContainerError:
    return CannotCreateContainerError(f"{name} of the image {what}")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
