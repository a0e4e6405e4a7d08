"""What containerd may hand down to containers, and how many processes can still be started."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.findings import Finding
from fargate_agent.runtime.cgroup import Cgroups
from fargate_agent.runtime.host import read_host_limits

FEW_PROCESSES: Final = 4096
"""A machine with less room than one task may use is short of processes."""


def find_right_faults(containerd_address: Path) -> Iterator[Finding]:
    """Yield what a container of an ordinary definition doesn't get; blocks."""
    try:
        limits = read_host_limits(containerd_address, limits_swap=True, pids_limit=None)
    except PermissionError:
        yield Finding(
            what=f"only root may ask containerd at {containerd_address}",
            effect="its limits and capabilities are not known: look as root",
        )
        return
    except OSError as error:
        yield Finding(
            what=f"containerd doesn't answer at {containerd_address}: {error.strerror or error}",
            effect="no task starts until it does",
        )
        return
    for what, effect in limits.default_shortfalls():
        yield Finding(what=what, effect=effect)


def find_process_faults(root: Path, cgroups: Cgroups) -> Iterator[Finding]:
    """Yield the limits on processes that leave too little room; blocks."""
    running = _count_threads(root)
    for name in ("kernel/pid_max", "kernel/threads-max"):
        with suppress(OSError, ValueError):
            most = int((root / "proc/sys" / name).read_text())
            if most - running < FEW_PROCESSES:
                yield _short(f"{name.replace('/', '.')} is {most}")
    tree = cgroups.controllers.get("pids")
    if tree is None:
        return
    # there at the root only where the machine is a container itself
    with suppress(OSError, ValueError):
        most = int((tree / "pids.max").read_text())
        if most - int((tree / "pids.current").read_text()) < FEW_PROCESSES:
            yield _short(f"{tree}/pids.max is {most}")


def _short(what: str) -> Finding:
    return Finding(
        what=what,
        effect=f"this machine has room for fewer than {FEW_PROCESSES} more processes and threads",
    )


def _count_threads(root: Path) -> int:
    """Source: proc(5), /proc/loadavg, the fourth field."""
    with suppress(OSError, ValueError, IndexError):
        return int((root / "proc/loadavg").read_text().split()[3].partition("/")[2])
    return 0
