"""Directories and files of this machine as volumes, in relaxed clusters alone (`host.sourcePath`).

Each is bound to a name in the task's directory, and containers mount it from there: what a path
leads to is decided once, by a descriptor, and nobody can change it before runC mounts it.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fargate_agent.drivers import VolumeDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import HostPaths, TaskPlan, VolumePlan
from fargate_agent.threads import in_thread
from fargate_agent.volumes.deadlines import with_deadline
from fargate_agent.volumes.mounts import DetachedMount, clone_mount, detach, is_listed
from fargate_agent.volumes.scratch import VOLUME_MODE
from fargate_agent.wire.attributes import HOST_VOLUMES, Attribute

_OPENAT2: Final = 437
"""Number of the system call on every architecture. Source: Linux, include/uapi/asm-generic."""
_RESOLVE_NO_MAGICLINKS: Final = 2
_RESOLVE_BENEATH: Final = 8
"""Source: openat2(2)."""
_TRIES: Final = 32
"""A path that is renamed while it is followed has to be followed again (EAGAIN)."""

_CLONE_FS: Final = 0x200
"""Source: unshare(2)."""

ANSWER_TIMEOUT_S: Final = 60.0
"""How long a path may take that lies on a server, or that an automounter mounts."""

_libc = ctypes.CDLL(None, use_errno=True)


class HostVolumes(VolumeDriver):
    """Binds what the operator allows; what tasks write there stays."""

    def __init__(self, paths: HostPaths) -> None:
        self._paths = paths

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        """Bind it, unless that was done before; settings that changed don't end a task."""
        try:
            if not await in_thread(is_listed, volume.source):
                finding = partial(self._find, volume)
                found = await with_deadline(finding, ANSWER_TIMEOUT_S, _Found.close)
                await in_thread(_place, found, volume.source)
        except TimeoutError as error:
            raise _refuse(volume, f"{volume.host_path}: its file system doesn't answer") from error
        except OSError as error:
            raise _refuse(volume, f"{volume.host_path}: {error.strerror}") from error

    async def release(self, task: TaskPlan, volume: VolumePlan) -> None:
        try:
            await in_thread(_release, volume.source)
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to take away the volume '{volume.name}': {error.strerror}"
            ) from error

    def read_attributes(self, _root: Path) -> Iterable[Attribute]:
        return (Attribute(f"{HOST_VOLUMES}{path}") for path in self._paths.allowed)

    def _find(self, volume: VolumePlan) -> "_Found":
        """Return what the path leads to. Blocks, maybe for ever, in a thread of its own."""
        _set_umask_of_thread(0o777 & ~VOLUME_MODE)
        descriptor = self._open(volume)
        try:
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            return _Found(clone_mount(descriptor, is_recursive=True), is_directory)
        finally:
            os.close(descriptor)

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
            self._check(volume, prefix, descriptor)
            kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
            if kind not in {stat.S_IFDIR, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFIFO}:
                raise _refuse(volume, f"host.sourcePath {path} is a device")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, volume: VolumePlan, prefix: Path, descriptor: int) -> None:
        """Refuse what is allowed by its name, and leads to what isn't.

        The path of the setting may itself lead through links: that is the operator's doing.
        """
        found, real = Path(f"/proc/self/fd/{descriptor}").readlink(), prefix.resolve()
        named = prefix / found.relative_to(real) if found.is_relative_to(real) else found
        allowed = self._paths.find_prefix(named)
        if allowed is None:
            raise _refuse(volume, self._paths.explain(found))
        below_allowed = len(named.parts) - len(allowed.parts)
        guarded = {_identify(one) for one in self._paths.guarded if one.exists()}
        # by a bind mount a directory has another name
        if any(_identify(one) in guarded for one in (found, *found.parents)[:below_allowed]):
            raise _refuse(volume, self._paths.explain(found))


@dataclass(frozen=True, slots=True)
class _Found:
    """What a path leads to, as a mount without a place."""

    mount: DetachedMount
    is_directory: bool

    def close(self) -> None:
        self.mount.close()


def _set_umask_of_thread(mask: int) -> None:
    """Give this thread a umask of its own, for ever: what it makes has its mode from the first.

    Raises:
        OSError: the kernel refused it.
    """
    if _libc.unshare(_CLONE_FS) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    os.umask(mask)


def _identify(path: Path) -> tuple[int, int]:
    """Return what is the same for a directory by whichever path it is reached."""
    about = path.stat()
    return about.st_dev, about.st_ino


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
        with suppress(FileExistsError):  # another task has made it, or a link has the name
            os.mkdir(inside.name, VOLUME_MODE, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        return _openat2(top, inside)
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, "a symbolic link leads to nothing") from error


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


def _place(found: _Found, target: Path) -> None:
    """Bind it to a name in the directory of the task, which is there."""
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        if found.is_directory:
            target.mkdir(mode=0o700, exist_ok=True)
        else:
            target.touch(mode=0o600)
        found.mount.place(target)
    finally:
        found.close()


def _release(target: Path) -> None:
    while is_listed(target):
        detach(target)
    with suppress(FileNotFoundError):
        if target.is_dir():
            target.rmdir()
        else:
            target.unlink()
    try:
        target.parent.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:  # of another volume
            raise


def _refuse(volume: VolumePlan, fault: str) -> ResourceInitializationError:
    return ResourceInitializationError(f"unable to mount the volume '{volume.name}': {fault}")
