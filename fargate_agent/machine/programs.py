"""Programs of this machine that tasks need, or would do well with."""

from collections.abc import Iterator

from fargate_agent.findings import Finding
from fargate_agent.runtime.cgroup import Cgroups
from fargate_agent.runtime.init import NO_INIT, find_init
from fargate_agent.runtime.oci_runtime import CRUN, RUNC, OciRuntimeError, find_oci_runtime
from fargate_agent.volumes.disks import find_mkfs


def find_program_faults(cgroups: Cgroups, oci_runtime: str) -> Iterator[Finding]:
    """Yield the programs that are missing or can't work; blocks."""
    if find_init() is None:
        yield Finding(what=NO_INIT, effect="tasks with initProcessEnabled or pidMode don't start")
    try:
        find_oci_runtime(oci_runtime, cgroups)
    except OciRuntimeError as error:
        yield Finding(what=f"oci_runtime: {error}", effect="no container is made")
    if oci_runtime == RUNC and cgroups.unified:
        yield Finding(
            what="the setting oci_runtime is runc",
            effect=f"{CRUN}, a package of Debian, takes half the time that runC takes",
        )


def find_mkfs_faults() -> Iterator[Finding]:
    """Yield whether EBS volumes can't have the file system that they have by default; blocks."""
    if find_mkfs("xfs") is None:
        yield Finding(
            what="mkfs.xfs is not installed; Debian's package xfsprogs has it",
            effect="tasks with EBS volumes that have the file system xfs, the default, don't start",
        )
