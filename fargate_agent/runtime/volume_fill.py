"""Volumes that start with what an image has at a path.

A copy is made in a directory of its own beside the volume (`<key>.new`), which gets another name
when it is whole (`<key>.ready`), and then its entries are moved. So nobody sees a part of a copy,
a copy that fails leaves the volume as it was, and one that a crash cuts off is begun again or gone
on with.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import posixpath
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.containerd.types import Mount
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.runtime.rootfs import look_into
from fargate_agent.runtime.tree_copy import copy_metadata, copy_tree
from fargate_agent.threads import in_thread
from fargate_agent.trees import remove_tree

PERSISTENT_STAGING: Final = ".image.volumes"
"""Beside named volumes: copies that are made for them. No volume has such a name."""

_VOLUME_MODE: Final = 0o755
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A volume, and what of an image it starts with."""

    path: str
    """In the image."""
    volume: Path
    name: str
    """Of the volume; empty for one that the definition doesn't name."""
    staging: Path
    """A directory of the same file system, where the copy is made."""
    outlives_machine: bool
    """Whether a power cut must not leave less of it than the agent believes."""

    @property
    def new(self) -> Path:
        return self.staging / f"{make_key(str(self.volume))}.new"

    @property
    def ready(self) -> Path:
        return self.staging / f"{make_key(str(self.volume))}.ready"


_Opened = tuple[tuple[Fill, int], ...]


async def fill_volumes(fills: Sequence[Fill], rootfs: Sequence[Mount], mountpoint: Path) -> None:
    """Fill those volumes that are empty; nobody else fills them meanwhile. May be repeated.

    Cancelled, it leaves no copy that isn't whole. See `look_into` for `rootfs` and `mountpoint`.

    Raises:
        CannotCreateContainerError: something has no room in a volume, or can't be copied.
        OSError: the image can't be mounted.
    """
    needy = [fill for fill in fills if await in_thread(_begin, fill)]
    if needy:
        await _copy(needy, rootfs, mountpoint)
    for fill in fills:
        with _explained(fill):
            await in_thread(_finish, fill)


def make_key(text: str) -> str:
    """Return a short file name for a path of any length."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def drop_copies(staging: Path, volume: Path) -> None:
    """Remove what is left of copies for a volume that is gone; blocks.

    Raises:
        OSError: something can't be removed.
    """
    for copy in ("new", "ready"):
        remove_tree(staging / f"{make_key(str(volume))}.{copy}")


def _begin(fill: Fill) -> bool:
    """Return whether there is something to copy, with an empty directory for it; blocks."""
    is_needy = False
    with _explained(fill):
        if not fill.name and not fill.volume.exists():
            fill.volume.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fill.volume.mkdir()
            fill.volume.chmod(_VOLUME_MODE)
        is_needy = not fill.ready.exists() and next(fill.volume.iterdir(), None) is None
        if is_needy:
            fill.staging.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_tree(fill.new)
            fill.new.mkdir(mode=0o700)
    return is_needy


async def _copy(fills: Sequence[Fill], rootfs: Sequence[Mount], mountpoint: Path) -> None:
    """Copy what an image has at each path, in a thread that has the image as its root.

    The directories that it copies into are opened before: from there they can't be seen. Whoever
    takes them out of `opened` closes them.
    """
    given_up = threading.Event()
    opened: list[_Opened] = []

    def copy() -> None:
        taken = _take(opened)
        try:
            for fill, descriptor in taken:
                _copy_one(fill, descriptor, given_up)
        finally:
            _close(taken)

    try:
        await in_thread(_open, fills, opened)
        await look_into(rootfs, mountpoint, copy, give_up=given_up.set)
    except BaseException:
        _close(_take(opened))
        await in_thread(_drop, fills)
        raise
    for fill in fills:
        with _explained(fill):
            await in_thread(fill.new.rename, fill.ready)


def _open(fills: Sequence[Fill], opened: list[_Opened]) -> None:
    """Open the directory of each copy, all or none; blocks."""
    found: list[tuple[Fill, int]] = []
    try:
        for fill in fills:
            with _explained(fill):
                found.append((fill, os.open(fill.new, _DIRECTORY)))
    except BaseException:
        _close(found)
        raise
    opened.append(tuple(found))


def _take(opened: list[_Opened]) -> _Opened:
    try:
        return opened.pop()
    except IndexError:
        return ()


def _close(opened: Iterable[tuple[Fill, int]]) -> None:
    for _, descriptor in opened:
        os.close(descriptor)


def _copy_one(fill: Fill, target: int, given_up: threading.Event) -> None:
    """Copy a directory of the image whose root is this thread's; blocks."""
    with _explained(fill, target):
        try:
            source = os.open(fill.path, _DIRECTORY)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            os.fchmod(target, _VOLUME_MODE)
            return
        try:
            copy_tree(source, target, given_up.is_set)
        finally:
            os.close(source)
        if fill.outlives_machine and _libc.syncfs(target) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _drop(fills: Sequence[Fill]) -> None:
    """Remove copies that aren't whole; blocks."""
    for fill in fills:
        with contextlib.suppress(OSError):
            remove_tree(fill.new)


def _finish(fill: Fill) -> None:
    """Move a copy that is whole into its volume, if there is one; blocks.

    What another container has written there meanwhile stays.
    """
    try:
        names = [path.name for path in fill.ready.iterdir()]
    except FileNotFoundError:
        return
    for name in names:
        if not os.path.lexists(fill.volume / name):
            (fill.ready / name).rename(fill.volume / name)
    source = os.open(fill.ready, _DIRECTORY)
    try:
        target = os.open(fill.volume, _DIRECTORY)
        try:
            copy_metadata(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)
    remove_tree(fill.ready)


@contextlib.contextmanager
def _explained(fill: Fill, place: int | None = None) -> Iterator[None]:
    """Say of an error of the kernel what could not be copied, and where.

    `place` is a descriptor of what is copied into, for a thread that doesn't see the volume.
    """
    try:
        yield
    except OSError as error:
        below = (error.filename or "") if isinstance(error.filename, str) else ""
        path = posixpath.join(fill.path, below[2:]) if below.startswith("./") else fill.path
        volume = f"volume '{fill.name}'" if fill.name else "a volume of its own"
        reason = (
            _render_full(fill.volume if place is None else place)
            if error.errno in _FULL
            else error.strerror
        )
        raise CannotCreateContainerError(
            f"unable to copy {path} of the image into {volume}: {reason}"
        ) from error


def _render_full(place: Path | int) -> str:
    """Say what is used up; blocks."""
    try:
        has_inodes = os.statvfs(place).f_favail > 0
    except OSError:
        has_inodes = True
    what = "no space is" if has_inodes else "no inodes are"
    return f"{what} left on the file system of the volume"
