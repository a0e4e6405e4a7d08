"""How much room the disk of the state directory has for volumes of tasks, and who is refused.

A volume is a file without content that grows as its task writes. So tasks can be promised more
than the disk has. The modes differ in what a new task is measured by:

* `sparse`: the space that is free now;
* `counted`: the space that is free if every volume grows to its size;
* `reserved`: as `counted`, and the space of each volume is taken from the disk when it is made.

The files of the volumes are the account; only those without a name yet are remembered. All
functions block.
"""

import asyncio
import ctypes
import errno
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fargate_agent.plan.volumes import EBS_DIRECTORY
from fargate_agent.volumes.bounded import GIB, IMAGE

Mode = Literal["sparse", "counted", "reserved"]

MIB: Final = 1 << 20
MARGIN_BYTES: Final = 1 * GIB
MARGIN_PART: Final = 20
"""The margin is a twentieth of the disk, where that is less."""
BLOCK_BYTES: Final = 512
"""Source: stat(2), `st_blocks`."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFile:
    """What the file of a volume says, or those of several together."""

    size_bytes: int
    """What was promised."""
    allocated_bytes: int
    """What it takes of the disk now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnnamedFile:
    """The open file of a volume that is being made, and has no name yet."""

    task_id: str
    file: int
    size_bytes: int
    """What is promised."""
    data_bytes: int = 0
    """What is copied into it before it has a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The disk of the state directory."""

    free_bytes: int
    size_bytes: int
    margin_bytes: int
    """What is kept free."""


class NoRoomError(Exception):
    """A volume is refused; the text has the numbers."""


class Room:
    """Decides whether a volume may be made."""

    def __init__(self, tasks_dir: Path, mode: Mode, margin_mib: int | None) -> None:
        """`margin_mib` is what is kept free of the disk; None: as `MARGIN_BYTES` says."""
        self.mode: Final = mode
        self._tasks_dir = tasks_dir
        self._margin_mib = margin_mib
        self.taking: Final = asyncio.Lock()
        """Held from the admission of a volume until it is in the account."""
        self._unnamed: list[UnnamedFile] = []
        self._unnamed_lock = threading.Lock()
        """A file isn't closed while it is looked at."""

    def look(self) -> Disk:
        """Return how the disk is.

        Raises:
            OSError: it can't be asked.
        """
        found = os.statvfs(self._tasks_dir)
        size_bytes = found.f_blocks * found.f_frsize
        margin = min(MARGIN_BYTES, size_bytes // MARGIN_PART)
        if self._margin_mib is not None:
            margin = self._margin_mib * MIB
        return Disk(
            free_bytes=found.f_bavail * found.f_frsize,
            size_bytes=size_bytes,
            margin_bytes=margin,
        )

    def list_volumes(self) -> dict[str, VolumeFile]:
        """Return what the volumes of each task are together, by the id of the task.

        Raises:
            OSError: the directory can't be read.
        """
        found = self._list_unnamed()
        images = (IMAGE, f"{EBS_DIRECTORY}/*.img")
        for image in (path for name in images for path in self._tasks_dir.glob(f"*/{name}")):
            try:
                about = image.lstat()
            except FileNotFoundError:  # gone meanwhile
                continue
            _add(found, image.relative_to(self._tasks_dir).parts[0], about.st_size, about)
        return found

    @contextmanager
    def counting(self, volume: UnnamedFile) -> Iterator[None]:
        """Have a volume that was admitted in the account during the body, which names its file."""
        with self._unnamed_lock:
            self._unnamed.append(volume)
        try:
            yield
        finally:
            with self._unnamed_lock:
                self._unnamed.remove(volume)

    def admit(self, size_bytes: int, data_bytes: int = 0) -> None:
        """Return if there is room for one more volume, into which `data_bytes` are copied first.

        Raises:
            NoRoomError: there isn't.
            OSError: the disk can't be asked.
        """
        disk = self.look()
        if self.mode == "sparse":
            coming_bytes = self._find_coming()
            needed = [f"{_mib(disk.margin_bytes)} that are kept free"]
            if coming_bytes:
                needed.append(f"{_mib(coming_bytes)} of snapshots that are being copied")
            if data_bytes:
                needed.append(f"{_mib(data_bytes)} of its snapshot")
            if disk.free_bytes < disk.margin_bytes + coming_bytes + data_bytes:
                raise NoRoomError(
                    f"the disk of {self._tasks_dir.parent} has {_mib(disk.free_bytes)} free, less "
                    f"than the {' and the '.join(needed)}"
                )
            return
        promised = find_promised(self.list_volumes())
        if promised + size_bytes > disk.free_bytes - disk.margin_bytes:
            raise NoRoomError(
                f"the disk of {self._tasks_dir.parent} has {_mib(disk.free_bytes)} free; "
                f"{_mib(disk.margin_bytes)} of it are kept free and {_mib(promised)} promised to "
                f"other tasks, so there is no room for {_mib(size_bytes)}"
            )

    def reserve(self, file: int, size_bytes: int) -> None:
        """Take the space of a volume from the disk now, if the mode asks for it.

        Raises:
            NoRoomError: the disk is too full, or can't do that. What was taken goes with the file.
            OSError: the kernel refused it.
        """
        if self.mode != "reserved":
            return
        # not posix_fallocate, which writes zeroes where the file system can't do it
        length = ctypes.c_int64(size_bytes)
        if _libc.fallocate(file, 0, ctypes.c_int64(0), length) == 0:
            return
        code = ctypes.get_errno()
        where = self._tasks_dir.parent
        if code in {errno.ENOSPC, errno.EDQUOT}:
            raise NoRoomError(f"the disk of {where} has no room for {_mib(size_bytes)}")
        if code == errno.EOPNOTSUPP:
            raise NoRoomError(
                f"the file system of {where} can't reserve space; set ephemeral_storage to "
                "counted or sparse"
            )
        raise OSError(code, os.strerror(code), str(where))

    def capacity_gib(self) -> int | None:
        """Return how much can be promised to tasks in all; None: that is not counted.

        Raises:
            OSError: the disk can't be asked.
        """
        if self.mode == "sparse":
            return None
        disk = self.look()
        taken = sum(volume.allocated_bytes for volume in self.list_volumes().values())
        return max(0, disk.free_bytes - disk.margin_bytes + taken) // GIB

    def _list_unnamed(self) -> dict[str, VolumeFile]:
        found: dict[str, VolumeFile] = {}
        with self._unnamed_lock:
            for one in self._unnamed:
                about = os.fstat(one.file)
                if about.st_nlink == 0:  # else it is found by its name
                    _add(found, one.task_id, one.size_bytes, about)
        return found

    def _find_coming(self) -> int:
        """Return how many bytes of snapshots are still to be copied."""
        with self._unnamed_lock:
            return sum(
                max(0, one.data_bytes - os.fstat(one.file).st_blocks * BLOCK_BYTES)
                for one in self._unnamed
            )


def find_promised(volumes: Mapping[str, VolumeFile]) -> int:
    """Return by how many bytes volumes can still grow."""
    return sum(max(0, one.size_bytes - one.allocated_bytes) for one in volumes.values())


def _add(
    found: dict[str, VolumeFile], task_id: str, size_bytes: int, about: os.stat_result
) -> None:
    """Add a file to those of its task."""
    before = found.get(task_id, VolumeFile(size_bytes=0, allocated_bytes=0))
    found[task_id] = VolumeFile(
        size_bytes=before.size_bytes + size_bytes,
        allocated_bytes=before.allocated_bytes + about.st_blocks * BLOCK_BYTES,
    )


def _mib(count: int) -> str:
    return f"{count // MIB} MiB"
