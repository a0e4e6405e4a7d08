"""File systems of snapshots in volumes that are larger: ext grows in the file, xfs when mounted.

All functions block.
"""

import os
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import EbsPlan
from fargate_agent.volumes.file_system_programs import run_program

GIB: Final = 1 << 30
TIMEOUT_S: Final = 300.0
"""e2fsck reads all metadata of the file system."""
_E2FSCK_REPAIRED: Final = 1
"""Source: e2fsck(8), exit code: errors were corrected."""


def grow_file(file: int, ebs: EbsPlan) -> None:
    """Have a copied snapshot be as large as the volume.

    Raises:
        ResourceInitializationError: the volume is smaller than its snapshot.
        OSError: a program failed, or isn't installed.
    """
    size, wanted = os.fstat(file).st_size, (ebs.size_gib or 0) * GIB
    if not wanted or size == wanted:
        return
    if wanted < size:
        raise ResourceInitializationError(
            f"the volume has {ebs.size_gib} GiB, less than the {size / GIB:g} GiB of its snapshot "
            f"'{ebs.snapshot_id}'"
        )
    os.ftruncate(file, wanted)
    if ebs.filesystem_type != "xfs":
        path = f"/proc/self/fd/{file}"
        good = (0, _E2FSCK_REPAIRED)
        run_program("e2fsck", ("-f", "-p", path), timeout_s=TIMEOUT_S, file=file, good=good)
        run_program("resize2fs", (path,), timeout_s=TIMEOUT_S, file=file)


def grow_mounted(mountpoint: Path, ebs: EbsPlan) -> None:
    """Have a mounted xfs be as large as its volume; nothing to do is fine.

    Raises:
        OSError: the program failed, or isn't installed.
    """
    if ebs.filesystem_type == "xfs" and ebs.size_gib is not None:
        run_program("xfs_growfs", ("-d", str(mountpoint)), timeout_s=TIMEOUT_S)
