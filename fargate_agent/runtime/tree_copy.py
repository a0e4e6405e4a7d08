"""A directory copied with all that is in it, as an image has it.

Equal are names, contents, holes, owners, modes, times, extended attributes, hard links, symbolic
links and pipes. Left out are device nodes, which nobody can open on a volume (`nodev`), and the
attributes that belong to the host: those of overlay (`trusted.*`) and the label of SELinux.

Everything is reached by descriptors of directories, and no link is followed. All functions block.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

MAX_DEPTH: Final = 256
"""Directories within each other; each holds two descriptors and frames of the interpreter."""

_CHUNK_BYTES: Final = 8 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SOURCE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_TARGET: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOST_ATTRIBUTES: Final = ("trusted.", "security.selinux")


class GivenUpError(Exception):
    """Whoever wanted the copy doesn't want it any more."""


def copy_tree(source: int, target: int, is_given_up: Callable[[], bool] = lambda: False) -> None:
    """Copy a directory into an empty one that nobody else writes to; both are descriptors.

    Raises:
        GivenUpError: `is_given_up` said so. What was copied until then stays.
        OSError: the kernel refused. Its `filename` is the path below the directory.
    """
    _Copy(target, is_given_up).copy_directory(source, target, ())


def copy_metadata(source: int, target: int, found: os.stat_result | None = None) -> None:
    """Give a file or directory the owner, mode, attributes and times of another; descriptors.

    The order counts: chown(2) takes away set-user-ID and `security.capability`.

    Raises:
        OSError: the kernel refused.
    """
    found = found or os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(_HOST_ATTRIBUTES):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


class _Copy:
    """One copy, while it is made."""

    def __init__(self, top: int, is_given_up: Callable[[], bool]) -> None:
        self._top = top
        self._is_given_up = is_given_up
        self._linked: dict[tuple[int, int], str] = {}
        """Files with several names: where the first of them is, below the top."""

    def copy_directory(self, source: int, target: int, path: tuple[str, ...]) -> None:
        if len(path) > MAX_DEPTH:
            raise OSError(errno.ELOOP, f"more than {MAX_DEPTH} directories within each other")
        with os.scandir(source) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            self._check()
            with _name_failure((*path, name)):
                self._copy(name, source, target, path)
        copy_metadata(source, target)

    def _copy(self, name: str, source: int, target: int, path: tuple[str, ...]) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        identity = (found.st_dev, found.st_ino)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            with _opened(name, source, _DIRECTORY) as old, _opened(name, target, _DIRECTORY) as new:
                self.copy_directory(old, new, (*path, name))
            return
        if kind in {stat.S_IFCHR, stat.S_IFBLK}:
            return
        if identity in self._linked:
            os.link(
                self._linked[identity],
                name,
                src_dir_fd=self._top,
                dst_dir_fd=target,
                follow_symlinks=False,
            )
            return
        if kind == stat.S_IFREG:
            self._copy_file(name, source, target)
        else:
            _copy_special(name, source, target, found)
        if found.st_nlink > 1:
            self._linked[identity] = "/".join((*path, name))

    def _copy_file(self, name: str, source: int, target: int) -> None:
        with _opened(name, source, _SOURCE) as old, _opened(name, target, _TARGET) as new:
            found = os.fstat(old)
            self._copy_data(old, new, found.st_size)
            copy_metadata(old, new, found)

    def _copy_data(self, old: int, new: int, size_bytes: int) -> None:
        """Copy what isn't a hole. Source: lseek(2), SEEK_DATA."""
        offset = 0
        while offset < size_bytes:
            try:
                offset = os.lseek(old, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # a hole up to the end
            end = os.lseek(old, offset, os.SEEK_HOLE)
            os.lseek(new, offset, os.SEEK_SET)
            while offset < end:
                self._check()
                sent = os.sendfile(new, old, offset, min(end - offset, _CHUNK_BYTES))
                if sent == 0:
                    raise OSError(errno.EIO, "the file became shorter")
                offset += sent
        os.ftruncate(new, size_bytes)

    def _check(self) -> None:
        if self._is_given_up():
            raise GivenUpError


def _copy_special(name: str, source: int, target: int, found: os.stat_result) -> None:
    """Copy a link, a pipe or a socket. They can't have attributes of users. Source: xattr(7)."""
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, stat.S_IFMT(found.st_mode) | 0o600, dir_fd=target)
    os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
    times_ns = (found.st_atime_ns, found.st_mtime_ns)
    os.utime(name, ns=times_ns, dir_fd=target, follow_symlinks=False)


@contextlib.contextmanager
def _opened(name: str, directory: int, flags: int) -> Iterator[int]:
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _name_failure(path: tuple[str, ...]) -> Iterator[None]:
    """Give an error of one entry the path of it."""
    try:
        yield
    except OSError as error:
        if not (isinstance(error.filename, str) and error.filename.startswith("./")):
            error.filename, error.filename2 = f"./{'/'.join(path)}", None
        raise
