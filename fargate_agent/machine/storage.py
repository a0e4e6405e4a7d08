"""Room and kinds of file systems that images, volumes and logs need."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.findings import Finding

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


def find_loop_faults(root: Path) -> Iterator[Finding]:
    """Yield whether there are no loop devices; blocks."""
    if not (root / "dev/loop-control").exists():
        yield Finding(
            what="this machine has no loop devices (/dev/loop-control)",
            effect="nothing bounds the disk space that the volumes of a task take",
        )


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
