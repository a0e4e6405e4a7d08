"""Files with a file system that stand for snapshots of EBS volumes, copied into new volumes."""

import errno
import os
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import VolumePlan
from fargate_agent.threads import in_thread
from fargate_agent.volumes.bounded import copy_some
from fargate_agent.volumes.descriptors import in_thread_with_files

_PIECE_BYTES: Final = 64 << 20
"""What is copied at once: a stop waits for no more than that."""
_MAGIC: Final = {"xfs": (0, b"XFSB"), "ext": (1080, b"\x53\xef")}
"""Source: Linux, fs/xfs/libxfs/xfs_format.h, XFS_SB_MAGIC; include/uapi/linux/magic.h,
EXT4_SUPER_MAGIC, which ext3 has as well."""


async def copy_snapshot(path: Path, target: int, volume: VolumePlan) -> None:
    """Copy a file with a file system into an open, empty file; holes stay holes.

    Raises:
        ResourceInitializationError: it isn't there, or has another file system than the volume.
        OSError: it can't be copied.
    """
    source = await in_thread(_open, path, volume)
    try:
        size = os.fstat(source).st_size
        os.ftruncate(target, size)
        offset = 0
        while offset < size:
            offset = await in_thread_with_files(_copy_piece, (source, target), offset, size)
    finally:
        os.close(source)


def _open(path: Path, volume: VolumePlan) -> int:
    """Open a file that has the file system of the volume."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(volume, f"its file can't be opened: {error.strerror}") from error
    wanted = volume.ebs.filesystem_type if volume.ebs is not None else ""
    offset, magic = _MAGIC["xfs" if wanted == "xfs" else "ext"]
    try:
        found = os.pread(source, len(magic), offset)
    except OSError as error:  # e.g. a directory
        os.close(source)
        raise _unusable(volume, f"its file can't be read: {error.strerror}") from error
    if found != magic:
        os.close(source)
        raise _unusable(volume, f"its file has no file system {wanted}")
    return source


def _copy_piece(source: int, target: int, offset: int, size: int) -> int:
    """Copy the next data at or behind an offset; return where to go on, `size` at the end."""
    try:
        start = os.lseek(source, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole
            return size
        raise
    end = min(os.lseek(source, start, os.SEEK_HOLE), start + _PIECE_BYTES)
    while start < end:
        start += copy_some(source, target, start, end - start)
    return end


def _unusable(volume: VolumePlan, why: str) -> ResourceInitializationError:
    snapshot = volume.ebs.snapshot_id if volume.ebs is not None else None
    return ResourceInitializationError(
        f"the volume '{volume.name}' can't be made from the snapshot '{snapshot}': {why}"
    )
