"""A bounded volume: a file system in a file without a name, which a task takes when it starts.

It is made before anybody needs it, and goes with this process as long as it has no name:

1. a file without a name in the directory of tasks, as long as the volume is large, without content;
2. an ext4 in it, without a journal: nobody mounts it a second time;
3. a loop device that clears itself, and a mount without a place.

A task takes it by giving the file a name and the mount a place:

    <task directory>/storage.img    the file
    <task directory>/storage/       what is mounted

All functions block.
"""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.plan.volumes import STORAGE_DIRECTORY
from fargate_agent.trees import remove_tree
from fargate_agent.volumes.disks import make_file_system, mount_file, shut_down
from fargate_agent.volumes.loop import check_loop_devices
from fargate_agent.volumes.mounts import DetachedMount, is_listed, unmount

IMAGE: Final = "storage.img"
GIB: Final = 1 << 30

_MKFS: Final = ("-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard")
"""No blocks only for root, no journal, and inode tables that aren't written: 14 ms for 20 GiB."""
_OPTIONS: Final = ("noinit_itable",)
"""Without it the kernel writes the inode tables, 320 MiB of zeroes. Source: ext4(5)."""
DISCARD: Final = "discard"
"""A deleted file is space of the host again at once. Source: ext4(5)."""
_COPY_BYTES: Final = 16 << 20


class Volume:
    """A bounded volume that no task has taken yet. What is not taken has to be closed."""

    def __init__(self, file: int, mount: DetachedMount, *, size_bytes: int, direct: bool) -> None:
        """Own an open file and its mount; `direct`: the page cache of the host is bypassed."""
        self.file: Final = file
        self.mount: Final = mount
        self.size_bytes: Final = size_bytes
        self.is_direct: Final = direct
        self._is_open = True

    def close(self) -> None:
        """Let go of it: what was not taken is gone, what was taken belongs to the task."""
        if self._is_open:
            self._is_open = False
            self.mount.close()
            os.close(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A file without a name that holds a fresh file system, to be copied: a tenth of mkfs."""

    file: int
    size_bytes: int

    def close(self) -> None:
        """Let go of it, and of the space that it takes."""
        os.close(self.file)


def make_template(directory: Path, size_bytes: int) -> Template:
    """Make a template; `directory` is on the file system where copies of it will be.

    Raises:
        NoLoopDevicesError: this machine gives no loop device.
        NoProgramError: mkfs.ext4 is not installed.
        OSError: the file system has no files without a name, no space, or mkfs failed.
    """
    check_loop_devices()
    return Template(file=_make_file(directory, size_bytes, None), size_bytes=size_bytes)


def make_volume(
    directory: Path, size_bytes: int, options: Iterable[str], template: Template | None = None
) -> Volume:
    """Make a volume without a name; `directory` is on the file system where it will have one.

    `options` are those of ext4 beside what every volume has. A `template` of the size saves mkfs.

    Raises:
        NoProgramError: mkfs.ext4 is not installed.
        NoLoopDevicesError: this machine gives no loop device.
        OSError: as `make_template`, or the kernel refused the mount.
    """
    check_loop_devices()
    file = _make_file(directory, size_bytes, template)
    try:
        mount, direct = mount_file(file, "ext4", flags=(*_OPTIONS, *options))
    except OSError:
        os.close(file)
        raise
    return Volume(file, mount, size_bytes=size_bytes, direct=direct)


def take(volume: Volume, directory: Path) -> None:
    """Give a volume to a task, whose directory is there with an empty `storage` in it.

    Raises:
        OSError: the kernel refused it; what is left is taken away by `remove`.
    """
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        link(volume.file, parent)
    finally:
        os.close(parent)
    place(volume.mount, directory / STORAGE_DIRECTORY)
    volume.close()


def link(file: int, directory: int) -> None:
    """Name a file without a name `storage.img`, in an open directory."""
    # with a directory given, os.link is linkat, and follows the link that /proc has
    os.link(f"/proc/self/fd/{file}", IMAGE, dst_dir_fd=directory)


def place(mount: DetachedMount, storage: Path) -> None:
    """Give a mount its place; nobody but root gets in, not even through another mount of it."""
    mount.change_mode(0o700)
    mount.place(storage)


def is_taken(directory: Path) -> bool:
    """Whether the volume of the task with this directory is mounted."""
    return os.path.ismount(directory / STORAGE_DIRECTORY)


def remove(directory: Path) -> None:
    """Take away the volume of a task, or what a crash left of it, or the plain directories.

    Nothing of it is written to the disk any more. Its space is free at once, even if a stranger's
    mount namespace has a copy of the mount. May be repeated at every step.

    Raises:
        OSError: the kernel refused something.
    """
    storage = directory / STORAGE_DIRECTORY
    if storage.is_symlink():  # of a task that an older agent began
        storage.unlink()
    elif is_listed(storage):
        shut_down(storage)
        unmount(storage)
    empty(directory / IMAGE)
    (directory / IMAGE).unlink(missing_ok=True)
    remove_tree(storage)


def empty(image: Path) -> None:
    """Give the space of a file back, also if somebody has it open; do nothing if it isn't there."""
    try:
        descriptor = os.open(image, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _make_file(directory: Path, size_bytes: int, template: Template | None) -> int:
    """Return an open file without a name, with a file system in it."""
    file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(file, size_bytes)
        if template is not None and template.size_bytes == size_bytes:
            copy_content(template.file, file)
        else:
            make_file_system(file, "ext4", _MKFS)
    except OSError:
        os.close(file)
        raise
    return file


def copy_content(source: int, target: int) -> None:
    """Copy a sparse file, without its holes, into one of the same length that has nothing but.

    Raises:
        OSError: there is no space, or one can't be read or written.
    """
    offset = 0
    while True:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind the offset
                return
            raise
        offset = os.lseek(source, start, os.SEEK_HOLE)
        while start < offset:
            start += copy_some(source, target, start, offset - start)


def copy_some(source: int, target: int, offset: int, count: int) -> int:
    """Copy bytes to the same place, within the kernel where it can; return how many.

    Raises:
        OSError: there is no space, one can't be read or written, or the source became shorter.
    """
    count = min(count, _COPY_BYTES)
    with suppress(OSError):  # e.g. EXDEV; a disk without space refuses what follows
        if copied := os.copy_file_range(source, target, count, offset, offset):
            return copied
    content = os.pread(source, count, offset)
    if not content:
        raise OSError(errno.EIO, "the file system that is copied became shorter")
    return os.pwrite(target, content, offset)
