"""The files of a layer, made below `/`, which is the directory that the process is confined to."""

from __future__ import annotations

import errno
import os
import stat

from fargate_agent.image.layers import headers
from fargate_agent.image.layers.headers import Entry, UnknownError
from fargate_agent.image.layers.stream import NoSpaceError, TarStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
"""Names of files that hide what lower layers have. Source: OCI image-spec, layer.md, Whiteouts."""

SPACE_CHECK_BYTES = 1 << 20
"""So much is written between two looks at the free space."""

MAX_MARGIN_BYTES = 1 << 30
"""So much of the disk stays free, or a hundredth of it if that is less."""

LEAST_MARGIN_BYTES = 4 << 20
"""containerd must write to its database to give back what a layer takes that doesn't fit."""

MAX_DIRECTORY_BYTES = 1 << 27
"""Of memory for what is remembered of directories until the end of the layer."""

_DIRECTORY_BYTES = 300
"""Of one, beside its name."""

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_ACL_PREFIX = b"system.posix_acl_"
"""Of extended attributes that change modes: that of their file, or of what is made in it later."""

_TYPES = {headers.CHAR: stat.S_IFCHR, headers.BLOCK: stat.S_IFBLK, headers.FIFO: stat.S_IFIFO}
_SET_ID = stat.S_ISUID | stat.S_ISGID
_MAX_MAJOR, _MAX_MINOR = 0xFFF, 0xFFFFF


class Space:
    """Watches how much of the disk is free."""

    def __init__(self) -> None:
        self._written_bytes = 0

    def note(self, size_bytes: int) -> None:
        """Note what will be written.

        Raises:
            NoSpaceError: hardly anything is free.
        """
        self._written_bytes += size_bytes
        if self._written_bytes >= SPACE_CHECK_BYTES:
            self._written_bytes = 0
            disk = os.statvfs("/")
            margin_bytes = min(disk.f_blocks * disk.f_frsize // 100, MAX_MARGIN_BYTES)
            if disk.f_bavail * disk.f_frsize < max(margin_bytes, LEAST_MARGIN_BYTES):
                raise NoSpaceError


class Tree:
    """What has been made of a layer."""

    def __init__(self, *, is_lowest: bool) -> None:
        """`is_lowest`: nothing lies below the layer."""
        self.opaque: list[bytes] = []
        """Directories that hide all that lower layers have in them; not marked yet."""
        self._is_lowest = is_lowest
        self._directories: dict[bytes, tuple[int, int]] = {}
        self._directory_bytes = 0

    def add(self, entry: Entry, stream: TarStream) -> None:
        """Make the file of an entry, with its content from the stream.

        Raises:
            UnknownError: this program doesn't know how.
            OSError: it can't be made.
        """
        path = os.path.normpath(b"/" + entry.name.lstrip(b"/"))
        if path == b"/":
            stream.skip(entry.size_bytes)
        elif os.path.basename(path).startswith(WHITEOUT):
            self._hide(path, entry)
            stream.skip(entry.size_bytes)
        elif entry.kind == headers.FILE:
            self._add_file(path, entry, stream)
        elif entry.kind == headers.DIRECTORY:
            self._add_directory(path, entry)
        else:
            self._add_other(path, entry)
        stream.skip(-entry.size_bytes % headers.BLOCK_BYTES)

    def finish(self) -> None:
        """Set the times of directories, when nothing more will be made in them."""
        for path, times_ns in self._directories.items():
            os.utime(path, ns=times_ns, follow_symlinks=False)

    def _add_file(self, path: bytes, entry: Entry, stream: TarStream) -> None:
        descriptor = self._make(path, lambda: os.open(path, _NEW_FILE, entry.mode & 0o777))
        try:
            stream.copy(entry.size_bytes, descriptor)
            os.fchown(descriptor, entry.uid, entry.gid)
            _set_xattrs(path, entry)
            if entry.mode & ~0o777:
                os.fchmod(descriptor, entry.mode)
                _check_mode(os.fstat(descriptor), entry)
            os.utime(descriptor, ns=(entry.atime_ns, entry.mtime_ns))
        finally:
            os.close(descriptor)

    def _add_directory(self, path: bytes, entry: Entry) -> None:
        def make() -> None:
            try:
                os.mkdir(path, entry.mode & 0o777)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    raise

        self._make(path, make)
        os.lchown(path, entry.uid, entry.gid)
        _set_xattrs(path, entry)
        os.chmod(path, entry.mode)
        if entry.mode & _SET_ID:
            _check_mode(os.lstat(path), entry)
        if path not in self._directories:
            self._remember(path)
        self._directories[path] = (entry.atime_ns, entry.mtime_ns)

    def _add_other(self, path: bytes, entry: Entry) -> None:
        """Add a link, a device or a FIFO."""
        if entry.kind == headers.HARD_LINK:
            self._add_link(path, entry)
        elif entry.kind == headers.SYMLINK:
            self._make(path, lambda: os.symlink(entry.link, path))
        else:
            major, minor = entry.device
            if major > _MAX_MAJOR or minor > _MAX_MINOR:
                raise UnknownError("a device number that isn't possible")
            kind, device = entry.mode | _TYPES[entry.kind], os.makedev(major, minor)
            self._make(path, lambda: os.mknod(path, kind, device))
        os.lchown(path, entry.uid, entry.gid)
        _set_xattrs(path, entry)
        if entry.kind in _TYPES:
            os.chmod(path, entry.mode)
            _check_mode(os.lstat(path), entry)
        os.utime(path, ns=(entry.atime_ns, entry.mtime_ns), follow_symlinks=False)

    def _add_link(self, path: bytes, entry: Entry) -> None:
        """Add a hard link to a file of this layer.

        containerd sets the mode of the entry only if a file of that name happens to be where it
        runs, so an entry that differs from its file is left to it.
        """
        target = os.path.normpath(b"/" + entry.link.lstrip(b"/"))
        status = os.lstat(target)
        if not stat.S_ISLNK(status.st_mode) and (
            stat.S_IMODE(status.st_mode) != entry.mode or entry.mode & _SET_ID
        ):
            raise UnknownError("a hard link whose mode isn't that of its file")
        self._make(path, lambda: os.link(target, path, follow_symlinks=False))

    def _hide(self, path: bytes, entry: Entry) -> None:
        """Hide a file of lower layers, or all that they have in a directory."""
        directory, name = os.path.split(path)
        if self._is_lowest:
            raise UnknownError("a whiteout in the lowest layer")
        if name == OPAQUE:
            if not stat.S_ISDIR(os.stat(directory).st_mode):
                raise UnknownError("an opaque file")
            self._remember(directory)
            self.opaque.append(os.path.realpath(directory))
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in {b"", b".", b".."} or hidden.startswith(WHITEOUT):
            raise UnknownError("a whiteout of a name that isn't possible")
        hidden = os.path.join(directory, hidden)
        os.mknod(hidden, stat.S_IFCHR, 0)
        os.lchown(hidden, entry.uid, entry.gid)

    def _remember(self, path: bytes) -> None:
        self._directory_bytes += len(path) + _DIRECTORY_BYTES
        if self._directory_bytes > MAX_DIRECTORY_BYTES:
            raise UnknownError("more directories than fit into memory")

    def _make(self, path: bytes, call: Callable[[], T]) -> T:
        """Do the call; make room for it, or the directories above it, if it needs that."""
        try:
            return call()
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                raise UnknownError("something in the place of a directory") from None
            os.unlink(path)
        except FileNotFoundError:
            self._make_parents(os.path.dirname(path))
        return call()

    def _make_parents(self, directory: bytes) -> None:
        """Make the directories that have no entry of their own before what is in them.

        Above other layers they look as they do there, which isn't known here.
        """
        if not self._is_lowest:
            raise UnknownError("a file whose directory isn't in the layer")
        path = b""
        for name in directory.split(b"/")[1:]:
            path += b"/" + name
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(path).st_mode):
                    raise


def _set_xattrs(path: bytes, entry: Entry) -> None:
    for name, value in entry.xattrs:
        # Source: containerd, archive/tar_unix.go, `setxattr`: those of the administrator are left
        # out, and those that the file system doesn't have.
        if name.startswith(b"trusted."):
            continue
        if name.startswith(_ACL_PREFIX):
            raise UnknownError("an access control list")
        try:
            os.setxattr(path, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise


def _check_mode(status: os.stat_result, entry: Entry) -> None:
    """Raise if the kernel has left out a bit without an error, as it does without CAP_FSETID."""
    if stat.S_IMODE(status.st_mode) != entry.mode:
        raise UnknownError("a mode that can't be set here")
