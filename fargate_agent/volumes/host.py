"""Directories and files of this machine as volumes, in relaxed clusters alone (`host.sourcePath`).

Each is bound to a name in the task's directory, and containers mount it from there: what a path
leads to is decided once, by a descriptor, and nobody can change it before runC mounts it.
"""

import asyncio
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.drivers import VolumeDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import HostPaths, TaskPlan, VolumePlan
from fargate_agent.volumes.mounts import detach, list_mounts
from fargate_agent.volumes.scratch import VOLUME_MODE
from fargate_agent.wire.attributes import HOST_VOLUMES, Attribute

_OPENAT2: Final = 437
"""Number of the system call on every architecture. Source: Linux, include/uapi/asm-generic."""
_RESOLVE_NO_MAGICLINKS: Final = 2
_RESOLVE_BENEATH: Final = 8
"""Source: openat2(2)."""
_TRIES: Final = 32
"""A path that is renamed while it is followed has to be followed again (EAGAIN)."""

_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
"""Source: linux/mount.h."""

_libc = ctypes.CDLL(None, use_errno=True)


class HostVolumes(VolumeDriver):
    """Binds what the operator allows; what tasks write there stays."""

    def __init__(self, paths: HostPaths) -> None:
        self._paths = paths

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        try:
            await asyncio.to_thread(self._ensure, volume)
        except OSError as error:
            raise _refuse(volume, f"{volume.host_path}: {error.strerror}") from error

    async def release(self, task: TaskPlan, volume: VolumePlan) -> None:
        try:
            await asyncio.to_thread(_release, volume.source)
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to take away the volume '{volume.name}': {error.strerror}"
            ) from error

    def read_attributes(self, _root: Path) -> Iterable[Attribute]:
        return (Attribute(f"{HOST_VOLUMES}{path}") for path in self._paths.allowed)

    def _ensure(self, volume: VolumePlan) -> None:
        """Bind it, unless that was done before; settings that changed don't end a task."""
        if not _is_mounted(volume.source):
            _bind(self._open(volume), volume.source)
        _make_private(volume.source)

    def _open(self, volume: VolumePlan) -> int:
        """Return a descriptor of what the path leads to, which is allowed."""
        path = volume.host_path or Path("/")
        prefix = self._paths.find_prefix(path)
        if prefix is None:
            raise _refuse(volume, self._paths.explain(path))
        try:
            descriptor = _open_below(prefix, path.relative_to(prefix))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            text = f"host.sourcePath {path} leads out of {prefix} by a symbolic link"
            raise _refuse(volume, text) from error
        try:
            self._check(volume, prefix, Path(f"/proc/self/fd/{descriptor}").readlink())
            kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
            if kind not in {stat.S_IFDIR, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFIFO}:
                raise _refuse(volume, f"host.sourcePath {path} is a device")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, volume: VolumePlan, prefix: Path, found: Path) -> None:
        """Refuse what is allowed by its name, and leads to what isn't.

        The path of the setting may itself lead through links: that is the operator's doing.
        """
        real = prefix.resolve()
        named = prefix / found.relative_to(real) if found.is_relative_to(real) else found
        if self._paths.find_prefix(named) is None:
            raise _refuse(volume, self._paths.explain(found))


def _open_below(prefix: Path, inside: Path) -> int:
    """Open a path below a directory, and make directories that aren't there. Blocks.

    Source: ECS API, HostVolumeProperties.sourcePath: what doesn't exist is created.
    """
    top = os.open(prefix, os.O_PATH | os.O_CLOEXEC)
    if not inside.parts:
        return top
    try:
        for depth in range(1, len(inside.parts)):
            os.close(_open_or_make(top, Path(*inside.parts[:depth])))
        return _open_or_make(top, inside)
    finally:
        os.close(top)


def _open_or_make(top: int, inside: Path) -> int:
    try:
        return _openat2(top, inside)
    except FileNotFoundError:
        pass
    parent = _openat2(top, inside.parent)
    try:
        os.mkdir(inside.name, 0o700, dir_fd=parent)
    except FileExistsError as error:
        raise OSError(errno.ENOENT, "a symbolic link leads to nothing") from error
    finally:
        os.close(parent)
    made = _openat2(top, inside)
    os.chmod(f"/proc/self/fd/{made}", VOLUME_MODE)  # noqa: PTH101 - a descriptor
    return made


def _openat2(top: int, inside: Path) -> int:
    """Open a path that doesn't leave a directory; links that lead out are refused (EXDEV)."""
    how = struct.pack(
        "=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
    )
    for _ in range(_TRIES):
        descriptor = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_long(top),
            os.fsencode(inside),
            how,
            ctypes.c_long(len(how)),
        )
        if descriptor >= 0:
            return int(descriptor)
        if ctypes.get_errno() != errno.EAGAIN:
            break
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), str(inside))


def _bind(descriptor: int, target: Path) -> None:
    """Bind what a descriptor stands for, and close it."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            target.mkdir(mode=0o700, exist_ok=True)
        else:
            target.touch(mode=0o600)
        _mount(f"/proc/self/fd/{descriptor}".encode(), target, _MS_BIND | _MS_REC)
    finally:
        os.close(descriptor)


def _make_private(target: Path) -> None:
    """Keep mounts of the machine and those below the target from each other.

    Without that, what is mounted below would be unmounted on the machine when the target is.
    """
    _mount(b"none", target, _MS_REC | _MS_PRIVATE)


def _release(target: Path) -> None:
    while _is_mounted(target):
        _make_private(target)
        detach(target)
    with suppress(FileNotFoundError):
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink()
        target.parent.rmdir()


def _is_mounted(target: Path) -> bool:
    real = target.parent.resolve() / target.name
    return any(one.mountpoint == real for one in list_mounts(target.parent))


def _mount(source: bytes, target: Path, flags: int) -> None:
    if _libc.mount(source, os.fsencode(target), None, ctypes.c_ulong(flags), None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def _refuse(volume: VolumePlan, fault: str) -> ResourceInitializationError:
    return ResourceInitializationError(f"unable to mount the volume '{volume.name}': {fault}")
