"""The directory of a file system that a task sees as the root of its volume; functions block."""

import errno
import os
import time
from pathlib import Path
from typing import Final

from fargate_agent.plan import EfsRoot
from fargate_agent.volumes.unfinished import UNFINISHED_MODE, is_unfinished

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PARENT: Final = EfsRoot(uid=0, gid=0, mode=0o755)
"""Of directories on the way. Source: EFS user guide, "Working with access points"."""

MAKER_TIMEOUT_S: Final = 2.0
"""How long a directory may be unfinished before its maker counts as killed; a server of NFS needs
a few round trips."""
_POLL_S: Final = 0.01


def open_root(top: Path, path: str, root: EfsRoot | None) -> int:
    """Open the directory at a path below `top`; the last part is made if `root` says how.

    Tasks write there, so no link is followed: it could lead out. Another task, or another machine,
    may make the same directory at the same time: one of them makes it, and all get that one, with
    its owner and mode.

    Raises:
        OSError: it isn't there, or can't be made; ENOTDIR or ELOOP for a link.
    """
    current = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    parts = [part for part in path.split("/") if part]
    try:
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            made = root if is_last or root is None else PARENT
            following = _open_part(current, part, made)
            os.close(current)
            current = following
    except OSError:
        os.close(current)
        raise
    return current


def _open_part(parent: int, name: str, root: EfsRoot | None) -> int:
    is_made = False
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        if root is None:
            raise
        is_made = _make(parent, name)
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        if is_made or not _is_finished_in_time(directory):
            _finish(directory, name, root)
    except OSError:
        os.close(directory)
        raise
    return directory


def _make(parent: int, name: str) -> bool:
    """Make a directory; False: somebody else has."""
    try:
        os.mkdir(name, UNFINISHED_MODE, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def _is_finished_in_time(directory: int) -> bool:
    deadline = time.monotonic() + MAKER_TIMEOUT_S
    while is_unfinished(os.fstat(directory)):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _finish(directory: int, name: str, root: EfsRoot | None) -> None:
    """Give a directory its owner, and then its mode, which says that it is finished."""
    if root is None:
        raise FileNotFoundError(errno.ENOENT, "its maker has left it unfinished", name)
    os.fchown(directory, root.uid, root.gid)
    os.fchmod(directory, root.mode)
