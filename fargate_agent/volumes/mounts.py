"""Mounts by system call: complete before they get their place, and found in the kernel's own list.

All functions block.
"""

import ctypes
import errno
import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_MOUNT_SETATTR: Final = 442
"""Numbers of system calls, the same on every architecture. glibc has functions for them from 2.36
on only. Source: Linux, include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls."""

_FSOPEN_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_FSMOUNT_CLOEXEC: Final = 1
_OPEN_TREE_CLONE: Final = 1
_OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NOSUID: Final = 2
MOUNT_ATTR_NODEV: Final = 4
"""Source: Linux, include/uapi/linux/mount.h, fcntl.h."""
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
"""Source: mount(2)."""
_PRIVATE: Final = struct.pack("=QQQQ", 0, 0, _MS_PRIVATE, 0)
"""Source: mount_setattr(2), `struct mount_attr`: attr_set, attr_clr, propagation, userns_fd."""
_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
"""Source: umount(2)."""

_MAX_STACKED: Final = 16
"""How many mounts on one directory are taken away."""
_MESSAGE_BYTES: Final = 4096
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""Source: proc(5), /proc/[pid]/mounts: spaces and the like are octal numbers."""

_libc = ctypes.CDLL(None, use_errno=True)


class DetachedMount:
    """A mount without a place, which goes with the process that holds it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def place(self, mountpoint: Path) -> None:
        """Give it its place, a directory; from then on it lives without this process.

        Raises:
            OSError: the kernel refused it.
        """
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the mount is closed", str(mountpoint))
        _call(
            _MOVE_MOUNT,
            *(self._descriptor, b"", _AT_FDCWD, os.fsencode(mountpoint)),
            _MOVE_MOUNT_F_EMPTY_PATH,
            path=mountpoint,
        )
        self.close()

    def change_mode(self, mode: int) -> None:
        """Change the mode of its root directory."""
        if self._descriptor is not None:
            os.chmod(".", mode, dir_fd=self._descriptor)

    def reach(self, path: str) -> Path:
        """Return where something on it can be found as long as it is held and has no place."""
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the mount is closed", path)
        return Path(f"/proc/self/fd/{self._descriptor}") / path

    def close(self) -> None:
        """Let go of it; without a place it is gone then."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedOn:
    """A line of the kernel's list of mounts."""

    mountpoint: Path
    filesystem: str
    """E.g. `ext4`."""
    device: str
    """Number of the device, e.g. `7:0`."""
    options: frozenset[str] = frozenset()
    """Of the file system, e.g. `vers=4.1`."""


def make_mount(
    filesystem: str,
    source: Path | str,
    *,
    flags: Iterable[str] = (),
    values: Mapping[str, str] | None = None,
    attributes: int = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID,
) -> DetachedMount:
    """Mount a device without a place yet; `flags` and `values` are the file system's options.

    Raises:
        OSError: the kernel refused it; its text has the words of the file system.
    """
    context = _call(_FSOPEN, filesystem.encode(), _FSOPEN_CLOEXEC, path=source)
    try:
        for name, value in {"source": str(source), **(values or {})}.items():
            _configure(context, _FSCONFIG_SET_STRING, source, name, value)
        for name in flags:
            _configure(context, _FSCONFIG_SET_FLAG, source, name)
        _configure(context, _FSCONFIG_CMD_CREATE, source)
        return DetachedMount(_call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes, path=source))
    finally:
        os.close(context)


def load_filesystem(filesystem: str) -> None:
    """Have the kernel load the module of a file system, if it isn't loaded yet.

    Raises:
        OSError: ENODEV, the kernel has none.
    """
    os.close(_call(_FSOPEN, filesystem.encode(), _FSOPEN_CLOEXEC, path=filesystem))


def clone_mount(descriptor: int, *, is_recursive: bool = False) -> DetachedMount:
    """Show what a descriptor stands for once more, without a place yet.

    What is mounted below it is there only if `is_recursive` says so. Neither place sees what is
    mounted or unmounted at the other from now on, not even when this mount is taken away: it leaves
    the peer group of what it was cloned from before it has a place.

    Raises:
        OSError: the kernel refused it.
    """
    depth = _AT_RECURSIVE if is_recursive else 0
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | depth
    path = f"/proc/self/fd/{descriptor}"
    tree = _call(_OPEN_TREE, descriptor, b"", flags, path=path)
    mount = DetachedMount(tree)
    try:
        how = _AT_EMPTY_PATH | _AT_RECURSIVE
        _call(_MOUNT_SETATTR, tree, b"", how, _PRIVATE, len(_PRIVATE), path=path)
    except OSError:
        mount.close()
        raise
    return mount


def bind(descriptor: int, mountpoint: Path, *, is_recursive: bool = False) -> None:
    """Show what a descriptor stands for at another path as well, by `clone_mount`.

    Raises:
        OSError: the kernel refused it.
    """
    mount = clone_mount(descriptor, is_recursive=is_recursive)
    try:
        mount.place(mountpoint)
    finally:
        mount.close()


def make_private(mountpoint: Path) -> None:
    """Keep the mounts of the machine and those at and below a mount point from each other.

    For binds of older agents, which are in the peer group of what they show: without this, what is
    mounted below one is unmounted on the machine when the bind is. Only the top mount is reached.

    Raises:
        OSError: the kernel refused it.
    """
    flags = ctypes.c_ulong(_MS_REC | _MS_PRIVATE)
    if _libc.mount(b"none", os.fsencode(mountpoint), None, flags, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(mountpoint))


def unmount(mountpoint: Path) -> None:
    """Take away what is mounted on a directory, and what is mounted below that; nothing is fine.

    A mount that somebody still has open goes when it is closed. No link is followed.

    Raises:
        OSError: the kernel refused it.
    """
    for _ in range(_MAX_STACKED):
        if not is_listed(mountpoint):
            return
        if _umount2(mountpoint, _UMOUNT_NOFOLLOW) == errno.EBUSY:
            _umount2(mountpoint, _UMOUNT_NOFOLLOW | _MNT_DETACH)
    raise OSError(errno.EBUSY, "too many mounts are stacked on it", str(mountpoint))


def is_listed(mountpoint: Path) -> bool:
    """Whether something is mounted there; a file system that is shut down answers no stat."""
    place = mountpoint.parent.resolve() / mountpoint.name
    return any(one.mountpoint == place for one in list_mounts(place.parent))


def detach(mountpoint: Path) -> None:
    """Take away the top mount of a directory without waiting for anybody who has it open.

    Raises:
        OSError: the kernel refused it.
    """
    if _umount2(mountpoint, _UMOUNT_NOFOLLOW | _MNT_DETACH) == errno.EBUSY:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(mountpoint))


def abort_requests(mountpoint: Path) -> None:
    """Have those fail who wait for the server of a network file system, which is gone.

    Somebody has to have the mount open, so that it stays.

    Raises:
        OSError: the kernel refused it.
    """
    _umount2(mountpoint, _UMOUNT_NOFOLLOW | _MNT_FORCE)


def list_mounts(directory: Path) -> list[MountedOn]:
    """Return the mounts in a directory, at any depth, in an order in which they can be taken away.

    Raises:
        OSError: /proc can't be read.
    """
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    found = map(parse_mountinfo, text.splitlines())
    directory = directory.resolve()
    # a later line is mounted on or after an earlier one
    return [one for one in found if directory in one.mountpoint.parents][::-1]


def parse_mountinfo(line: str) -> MountedOn:
    """Return what a line says. Source: proc(5), /proc/[pid]/mountinfo."""
    fields, _, rest = line.partition(" - ")
    mountpoint = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields.split()[4])
    filesystem, _, *options = rest.split()
    return MountedOn(
        mountpoint=Path(mountpoint),
        filesystem=filesystem,
        device=fields.split()[2],
        options=frozenset(",".join(options).split(",")),
    )


def _configure(
    context: int, command: int, path: Path | str, name: str = "", value: str = ""
) -> None:
    key = name.encode() or None
    text = value.encode() if command == _FSCONFIG_SET_STRING else None
    try:
        _call(_FSCONFIG, context, command, key, text, 0, path=path)
    except OSError as error:
        message = _read_message(context)
        if message:
            error.strerror = f"{error.strerror} ({message})"
        raise


def _read_message(context: int) -> str:
    """Return what the file system has to say. Source: fsopen(2): `e` and a space begin an error."""
    try:
        text = os.read(context, _MESSAGE_BYTES).decode(errors="replace")
    except OSError:  # ENODATA: nothing
        return ""
    return text.strip().removeprefix("e ")


def _umount2(mountpoint: Path, flags: int) -> int:
    """Return 0, or EBUSY; a directory on which nothing is mounted is as good as 0."""
    if _libc.umount2(os.fsencode(mountpoint), flags) == 0:
        return 0
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOENT}:
        return 0
    if code != errno.EBUSY:
        raise OSError(code, os.strerror(code), str(mountpoint))
    return code


def _call(number: int, *arguments: int | bytes | None, path: Path | str) -> int:
    """Make a system call; an integer is as wide as a register."""
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *wide))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return result
