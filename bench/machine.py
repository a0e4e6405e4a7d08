"""What the figures depend on: the machine, and the programs that do the work."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from fargate_agent.runtime.cgroup import parse_unified_mount

_JOURNALS = Path("/proc/fs/jbd2")
"""Has a directory for each ext4 that is mounted and has a journal. Source: Linux, fs/jbd2."""


def print_machine(directory: Path) -> None:
    """Print it; `directory` is where the benchmarks write."""
    kernel, processors = platform.release(), os.cpu_count()
    print(f"machine: Linux {kernel}, {processors} processors, {_find_cgroups()}")
    print(f"disk of {directory}: {_find_disk(directory)}")
    programs = ("containerd", "runc", "crun", "podman", "unpigz")
    print(f"programs: {', '.join(map(_find_version, programs))}")
    print(f"Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}\n")


def is_hybrid() -> bool:
    """Whether cgroup v1 and v2 are both mounted, which crun refuses."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return parse_unified_mount(mounts) is not None and " - cgroup " in mounts


def _find_cgroups() -> str:
    if is_hybrid():
        return "cgroup v1, hybrid"
    mounts = Path("/proc/self/mountinfo").read_text()
    return "cgroup v2" if parse_unified_mount(mounts) else "cgroup v1"


def _find_disk(directory: Path) -> str:
    command = ("findmnt", "-no", "FSTYPE,SOURCE", "--target", str(directory))
    kind, source = _run(*command).split()[:2]
    if kind != "ext4":
        return kind
    device = Path(source).resolve().name
    has_journal = any(_JOURNALS.glob(f"{device}-*"))
    return f"ext4 {'with' if has_journal else 'without'} a journal"


def _find_version(program: str) -> str:
    """Return the program and its version; containerd inflates with unpigz if there is one."""
    if shutil.which(program) is None:
        return f"no {program}"
    words = _run(program, "--version").splitlines()[0].split()
    return f"{program} {next((word for word in words if word[:1].isdigit()), '')}".strip()


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout or done.stderr
