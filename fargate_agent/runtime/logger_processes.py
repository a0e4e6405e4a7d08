"""Which process the logger of a container is, as the kernel tells it. All functions block.

A logger is a child of the container's shim. One that took the place of another is nobody's: its
parent has ended, and it is beside the shim in the group of both.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.plan import ContainerPlan
from fargate_agent.process_stat import ProcessStat, read_process_stat
from fargate_agent.runtime.cgroupdriver import CgroupDrivers

_SHIM: Final = b"containerd-shim"
"""How the name of its program begins. Source: containerd, runtime/v2/shim/util.go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerProcess:
    """The logger of a container."""

    pid: int
    in_place: bool
    """Whether it took the place of another."""


def open_logger(
    cgroups: CgroupDrivers, container: ContainerPlan
) -> tuple[LoggerProcess, int] | None:
    """Return the logger with a file descriptor of its process; see pidfd_open(2).

    None if there is none.

    Raises:
        OSError: the kernel refused.
    """
    found = find_logger(cgroups, container)
    if found is None:
        return None
    try:
        descriptor = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return None
    if found == find_logger(cgroups, container):  # and not another that has its number now
        return found, descriptor
    os.close(descriptor)
    return None


def find_logger(cgroups: CgroupDrivers, container: ContainerPlan) -> LoggerProcess | None:
    """Return the logger of a container, if there is one.

    The shim's other children there are those by which it calls runC; they are younger.

    Raises:
        OSError: the kernel refused.
    """
    pids = cgroups.of(container.cgroup).find_loggers(container.cgroup)
    found = {pid: status for pid in pids if (status := read_process_stat(pid))}
    eldest = {pid for pid, status in found.items() if status.parent not in pids}
    shims = {pid for pid in eldest if _is_shim(pid)}
    if others := eldest - shims:
        return LoggerProcess(pid=_find_first(others, found), in_place=True)
    children = {pid for pid, status in found.items() if status.parent in shims}
    return LoggerProcess(pid=_find_first(children, found), in_place=False) if children else None


def _find_first(pids: set[int], found: Mapping[int, ProcessStat]) -> int:
    return min(pids, key=lambda pid: (found[pid].began, pid))


def _is_shim(pid: int) -> bool:
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return False
    return program.rpartition(b"/")[2].startswith(_SHIM)
