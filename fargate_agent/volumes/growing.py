"""File systems of snapshots in volumes that are larger: ext grows in the file, xfs when mounted.

All functions block.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import EbsPlan

GIB: Final = 1 << 30
TIMEOUT_S: Final = 300.0
"""e2fsck reads all metadata of the file system."""
_PROGRAMS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SAID_BYTES: Final = 500
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
        _run("e2fsck", "-f", "-p", path, file=file, good=(0, _E2FSCK_REPAIRED))
        _run("resize2fs", path, file=file)


def grow_mounted(mountpoint: Path, ebs: EbsPlan) -> None:
    """Have a mounted xfs be as large as its volume; nothing to do is fine.

    Raises:
        OSError: the program failed, or isn't installed.
    """
    if ebs.filesystem_type == "xfs" and ebs.size_gib is not None:
        _run("xfs_growfs", "-d", str(mountpoint))


def _run(name: str, *arguments: str, file: int | None = None, good: tuple[int, ...] = (0,)) -> None:
    program = shutil.which(name, path=_PROGRAMS)
    if program is None:
        raise OSError(0, f"{name} is not installed")
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and no word of a stranger
            [program, *arguments],
            pass_fds=() if file is None else (file,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"PATH": _PROGRAMS, "LC_ALL": "C"},
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(0, f"{name} did not end within {TIMEOUT_S:g} s") from error
    if done.returncode not in good:
        said = (done.stderr or done.stdout)[-_SAID_BYTES:].decode(errors="replace").strip()
        raise OSError(0, f"{name} failed with {done.returncode}: {said}")
