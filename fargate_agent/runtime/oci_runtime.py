"""The program that makes containers for containerd's shim: runC, crun, or another one like them."""

import shutil
from pathlib import Path
from typing import Final

from fargate_agent.runtime.cgroup import Cgroups

RUNC: Final = "runc"
CRUN: Final = "crun"


class OciRuntimeError(Exception):
    """The program that is asked for can't work on this host."""


def find_oci_runtime(wanted: str, cgroups: Cgroups) -> str:
    """Return what the shim is to call; empty is runC, which containerd finds itself.

    Blocks for microseconds.

    Raises:
        OciRuntimeError: it isn't there, or can't work here.
    """
    if wanted == RUNC:
        return ""
    found = shutil.which(wanted)
    if found is None:
        raise OciRuntimeError(f"there is no program {wanted}")
    if Path(found).name == CRUN and _is_hybrid(cgroups):
        raise OciRuntimeError("crun needs a host without cgroup v1, which this one has beside v2")
    return found


def _is_hybrid(cgroups: Cgroups) -> bool:
    """Whether v1 and v2 are both mounted. Source: cgroup-v2.rst, `cgroup.controllers`."""
    return not cgroups.unified and any(
        (tree / "cgroup.controllers").exists() for tree in cgroups.trees
    )
