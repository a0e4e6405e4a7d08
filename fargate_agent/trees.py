"""Directories that are removed with all that is in them, and nothing of another file system.

All functions block.
"""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

_MAX_DEPTH: Final = 64
"""Each level holds a file descriptor and a frame of the interpreter. What lies deeper is moved up;
a container can nest directories without a limit."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove a directory and all that is in it; do nothing if it isn't there.

    No mount is entered, not even one of the same file system, and no link is followed. The
    directory itself may not be a mount point either.

    Raises:
        OSError: something can't be removed, e.g. a mount point, with EBUSY. What was removed until
            then is gone.
    """
    try:
        tree = _Tree(path)
    except FileNotFoundError:
        return
    with closing(tree):
        tree.empty()
    path.rmdir()


def remove_or_empty(path: Path) -> None:
    """Remove a directory as `remove_tree` does; one that is a mount point itself is emptied.

    Raises:
        OSError: it stays, or something in it does.
    """
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        else:
            entry.unlink()
    path.rmdir()


def empty_tree(path: Path) -> None:
    """Remove all that is in a directory, as `remove_tree` does; the directory itself stays.

    Raises:
        OSError: something can't be removed, or the directory isn't there.
    """
    with closing(_Tree(path)) as tree:
        tree.empty()


class _Tree:
    """One directory while it is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._mount = _read_mount_id(parent)
            self._top = os.open(path.name, _DIRECTORY, dir_fd=parent)
        finally:
            os.close(parent)
        self._moved_up = True

    def close(self) -> None:
        os.close(self._top)

    def empty(self) -> None:
        while self._moved_up:  # each time with less depth than before
            self._moved_up = False
            self._empty(self._top, self._path, 1)

    def _empty(self, directory: int, path: Path, depth: int) -> None:
        if _read_mount_id(directory) != self._mount:
            raise OSError(errno.EBUSY, "a mount point is not removed", str(path))
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            with _name_failure(path / name):
                if not is_directory:
                    os.unlink(name, dir_fd=directory)
                elif depth == _MAX_DEPTH:
                    unique = f".{secrets.token_hex(16)}"
                    os.rename(name, unique, src_dir_fd=directory, dst_dir_fd=self._top)
                    self._moved_up = True
                else:
                    self._remove(name, directory, path / name, depth)

    def _remove(self, name: str, parent: int, path: Path, depth: int) -> None:
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self._empty(directory, path, depth + 1)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=parent)


@contextmanager
def _name_failure(path: Path) -> Iterator[None]:
    """Give an error that has the last part of a path the whole of it."""
    try:
        yield
    except OSError as error:
        if error.filename == path.name:
            error.filename, error.filename2 = str(path), None
        raise


def _read_mount_id(descriptor: int) -> int:
    """Return which mount a file was reached through. Source: proc(5), /proc/[pid]/fdinfo."""
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    found = re.search(r"^mnt_id:\s*(\d+)$", text, re.MULTILINE)
    if found is None:
        raise OSError(errno.ENOSYS, "the kernel doesn't say which mount a file is on")
    return int(found[1])
