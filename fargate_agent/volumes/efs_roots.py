"""The directory of a file system that a task sees as the root of its volume; functions block."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.plan import EfsRoot

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PARENT_MODE: Final = 0o755
"""Of directories on the way. Source: EFS user guide, "Working with access points"."""


def open_root(top: Path, path: str, root: EfsRoot | None) -> int:
    """Open the directory at a path below `top`; the last part is made if `root` says how.

    Tasks write there, so no link is followed: it could lead out.

    Raises:
        OSError: it isn't there, or can't be made; ENOTDIR or ELOOP for a link.
    """
    current = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    parts = [part for part in path.split("/") if part]
    try:
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            made = root if is_last or root is None else EfsRoot(uid=0, gid=0, mode=PARENT_MODE)
            following = _open_part(current, part, made)
            os.close(current)
            current = following
    except OSError:
        os.close(current)
        raise
    return current


def _open_part(parent: int, name: str, root: EfsRoot | None) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if root is None:
            raise
    _make(parent, name, root)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _make(parent: int, name: str, root: EfsRoot) -> None:
    """Make a directory that has its owner and mode when it gets its name.

    Another task, or another machine, may make the same one at the same time.
    """
    unfinished = f".{name}.unfinished"[:255]
    with suppress(FileExistsError):
        os.mkdir(unfinished, 0o700, dir_fd=parent)
    try:
        directory = os.open(unfinished, _DIRECTORY, dir_fd=parent)
        try:
            os.fchown(directory, root.uid, root.gid)
            os.fchmod(directory, root.mode)
        finally:
            os.close(directory)
        os.rename(unfinished, name, src_dir_fd=parent, dst_dir_fd=parent)
    except FileNotFoundError:
        return  # the other one has renamed it
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        with suppress(OSError):
            os.rmdir(unfinished, dir_fd=parent)
