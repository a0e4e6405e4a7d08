"""Room and kinds of file systems that images, volumes and logs need."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.findings import Finding
from fargate_agent.volumes.bounded import GIB
from fargate_agent.volumes.disks import find_mkfs
from fargate_agent.volumes.ephemeral import DEFAULT_GIB, UNBOUNDED
from fargate_agent.volumes.loop import CONTROL, NoLoopDevicesError, check_loop_devices
from fargate_agent.volumes.room import NoRoomError, Room

LITTLE_MIB: Final = 2048
FEW_FILES: Final = 20_000
"""What images of a few tasks take."""

RUN: Final = Path("/run")
LITTLE_RUN_MIB: Final = 16
"""Sockets, state of runC and network namespaces are kept there."""

CONTAINERD_ROOT: Final = Path("/var/lib/containerd")
"""Source: containerd, defaults/defaults_unix.go, `DefaultRootDir`."""


def find_storage_faults(state_dir: Path) -> Iterator[Finding]:
    """Yield the directories that have too little room, or can't be written to; blocks."""
    for directory, what, least_mib in (
        (state_dir, "volumes and logs of tasks", LITTLE_MIB),
        (CONTAINERD_ROOT, "images and files of containers", LITTLE_MIB),
        (RUN, "sockets and network namespaces of tasks", LITTLE_RUN_MIB),
    ):
        if directory == CONTAINERD_ROOT and not directory.exists():
            continue
        with suppress(OSError):
            yield from _find_faults(directory, what, least_mib)


def find_volume_faults(root: Path, *, required: bool) -> Iterator[Finding]:
    """Yield why the ephemeral storage of tasks can't be bounded; blocks.

    `required`: tasks are refused then, see `require_ephemeral_storage_limit`.
    """
    effect = "no task starts" if required else UNBOUNDED
    try:
        check_loop_devices(root / CONTROL.relative_to("/"))
    except NoLoopDevicesError as error:
        what = f"this machine gives no loop devices ({CONTROL}: {error.strerror})"
        yield Finding(what=what, effect=effect)
    if find_mkfs("ext4") is None:
        what = "mkfs.ext4 is not installed, the package e2fsprogs of Debian"
        yield Finding(what=what, effect=effect)


def find_room_faults(room: Room) -> Iterator[Finding]:
    """Yield whether the disk has no room for another task; blocks."""
    with suppress(OSError):
        try:
            room.admit(DEFAULT_GIB * GIB)
        except NoRoomError as error:
            yield Finding(what=str(error), effect=f"no task of {DEFAULT_GIB} GiB starts")


def _find_faults(directory: Path, what: str, least_mib: int) -> Iterator[Finding]:
    found = next(path for path in (directory, *directory.parents) if path.exists())
    about = os.statvfs(found)
    if about.f_flag & os.ST_RDONLY:
        yield Finding(what=f"{found} is read-only", effect=f"there is no place for {what}")
        return
    if about.f_bavail * about.f_frsize < least_mib << 20:
        yield Finding(
            what=f"less than {least_mib} MiB is free in {directory}",
            effect=f"there is little room for {what}",
        )
    if about.f_files and about.f_favail < FEW_FILES:
        yield Finding(
            what=f"fewer than {FEW_FILES} files can be made in {directory} (df -i)",
            effect=f"there is little room for {what}",
        )
