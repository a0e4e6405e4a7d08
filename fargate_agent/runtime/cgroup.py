"""The control group of a task, which bounds all its containers together, made in the tree itself.

This is the cgroup driver `cgroupfs`. The group is `/ecs/<task id>`; runC makes the container's own
groups below it. With cgroup v1 every controller has a tree of its own, with v2 there is one; which
of the two it is, the mounts say. A v1 host may have a v2 tree on the side that has no controllers;
runC uses that too.

A path here is that of a group within its tree, e.g. `/ecs/0123…`. All functions block.
"""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CPU_PERIOD_US: Final = 100_000
"""Source: amazon-ecs-agent, agent/config, `defaultCgroupCPUPeriod`: 100 ms."""

_MIN_CPU_QUOTA_US: Final = 1000
"""Source: Linux, kernel/sched/core.c, `min_cfs_quota_period`."""

_V1_REQUIRED: Final = ("cpu", "memory", "devices", "freezer")
_V2_REQUIRED: Final = ("cpu", "memory")

_LOGGERS: Final = "loggers"
"""Holds the groups of a task's shims and loggers; the groups of containers have other names."""

_ACCOUNTED: Final = ("cpu", "cpuacct", "memory", "pids", "blkio")
"""Where loggers count for their task. Others only restrict; `cpuset` takes nobody before it has
been given processors."""

POLL_S: Final = 0.005
"""The kernel doesn't say when a group has become empty of dying processes."""

_MKDIR_ATTEMPTS: Final = 10
"""Another agent on this machine may be removing the parent at this moment."""

_making_or_removing = threading.Lock()
"""The parent of all tasks goes with its last task; not while another is being made in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """The control groups of this machine."""

    trees: tuple[Path, ...]
    """Where each tree is mounted."""
    controllers: Mapping[str, Path]
    """Each controller, and its tree."""
    unified: bool
    """Whether this is cgroup v2."""
    name: str = "cgroupfs"

    def missing_controllers(self) -> tuple[str, ...]:
        """Return those that isolation needs and that this machine hasn't."""
        required = _V2_REQUIRED if self.unified else _V1_REQUIRED
        return tuple(name for name in required if name not in self.controllers)

    def exists(self, path: str) -> bool:
        return any(_below(tree, path).exists() for tree in self.trees)

    def render_path(self, path: str) -> str:
        return path

    def ensure(self, path: str, *, memory_mib: int | None, pids_max: int) -> None:
        """Make a task's group in every tree, so that nobody takes its parents away.

        Its memory and the number of its processes are bounded from now on.

        Raises:
            OSError: the kernel refused.
        """
        with _making_or_removing:
            for tree in self.trees:
                self._make(tree, path)
        if memory_mib is not None:
            self._bound_memory(path, memory_mib << 20)
        if "pids" in self.controllers:
            (self._directory("pids", path) / "pids.max").write_text(str(pids_max))

    def ensure_container(
        self, path: str, *, cpu_shares: int, memory_reservation_mib: int | None
    ) -> None:
        """Do nothing: runC makes the whole of a container's group."""

    @contextmanager
    def hold_loggers(self, path: str) -> Iterator[str]:
        """Make a group in that of the task; it goes with that.

        Raises:
            OSError: the kernel refused.
        """
        for directory in self._logger_directories(path):
            directory.mkdir(parents=True, exist_ok=True)
        yield _name_loggers(path)

    def find_loggers(self, path: str) -> frozenset[int]:
        """Return the process ids of a container's logger and its shim.

        Raises:
            OSError: the kernel refused.
        """
        groups = self._logger_directories(path)
        return frozenset(pid for group in groups for pid in read_processes(group))

    def find_groups(self, pid: int) -> tuple[Path, ...]:
        """Return the directories of the groups of a process, of all trees.

        Raises:
            OSError: it has gone.
        """
        return self.parse_groups(Path(f"/proc/{pid}/cgroup").read_text(errors="replace"))

    def parse_groups(self, text: str) -> tuple[Path, ...]:
        """Do that for the text of a /proc/<pid>/cgroup. Source: cgroups(7)."""
        v1_trees = {} if self.unified else self.controllers
        v2_trees = set(self.trees).difference(v1_trees.values())
        groups = set[Path]()
        for line in text.splitlines():
            _, names, path = line.split(":", 2)
            trees = {v1_trees[name] for name in names.split(",") if name in v1_trees}
            groups |= {_below(tree, path) for tree in (trees if names else v2_trees)}
        return tuple(groups)

    def find_processes(self, path: str) -> frozenset[int]:
        """Return the process ids of all that runs in a group and below it.

        Raises:
            OSError: the kernel refused.
        """
        groups = walk_up(self._directory("memory", path))
        return frozenset(pid for group in groups for pid in read_processes(group))

    def locate(self, path: str) -> str:
        return path

    def _logger_directories(self, path: str) -> list[Path]:
        names = self.controllers.keys() & set(_ACCOUNTED)
        return [self._directory(name, _name_loggers(path)) for name in names]

    def bound_cpu(self, path: str, cpu_units: int) -> None:
        """Bound the processors of a task's group.

        Raises:
            OSError: the kernel refused.
        """
        quota_us = plan_cpu_quota_us(cpu_units)
        group = self._directory("cpu", path)
        if self.unified:
            (group / "cpu.max").write_text(f"{quota_us} {CPU_PERIOD_US}")
            return
        (group / "cpu.cfs_period_us").write_text(str(CPU_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))

    def limits_swap(self, path: str) -> bool:
        """Whether a group that exists has a limit on swap."""
        name = "memory.swap.max" if self.unified else "memory.memsw.limit_in_bytes"
        return (self._directory("memory", path) / name).exists()

    def read_oom_kills(self, path: str) -> int:
        """Return how many processes of a group were killed for want of memory; 0 if it's gone."""
        name = "memory.events" if self.unified else "memory.oom_control"
        return read_oom_kills(self._directory("memory", path) / name)

    def remove(self, path: str, deadline_s: float) -> None:
        """Remove a group and all below it; kill what still runs in it.

        Raises:
            TimeoutError: it is still in use after `deadline_s`.
            OSError: the kernel refused.
        """
        end = time.monotonic() + deadline_s
        while not self._try_remove(path):
            if time.monotonic() > end:
                raise TimeoutError(f"control group {path} is still in use after {deadline_s:g} s")
            time.sleep(POLL_S)

    def _try_remove(self, path: str) -> bool:
        groups = [group for tree in self.trees for group in walk_up(_below(tree, path))]
        for group in groups:
            kill_processes(group)
        with _making_or_removing:
            gone = [remove_group(group) for group in groups]
            if not all(gone):
                return False
            for tree in self.trees:
                remove_group(_below(tree, path).parent)
        return True

    def _make(self, tree: Path, path: str) -> None:
        group = _below(tree, path)
        for attempt in range(_MKDIR_ATTEMPTS):
            try:
                group.parent.mkdir(exist_ok=True)
                group.mkdir(exist_ok=True)
            except FileNotFoundError:
                if attempt == _MKDIR_ATTEMPTS - 1:
                    raise
            else:
                break
        if self.unified:
            self._delegate(tree)
            self._delegate(group.parent)

    def _delegate(self, group: Path) -> None:
        """Let the groups right below have controllers."""
        available = (group / "cgroup.controllers").read_text().split()
        wanted = " ".join(f"+{name}" for name in ("cpu", "memory", "pids") if name in available)
        (group / "cgroup.subtree_control").write_text(wanted)

    def _bound_memory(self, path: str, limit_bytes: int) -> None:
        """Bound memory, and swap to nothing beyond it."""
        group = self._directory("memory", path)
        files = (
            {"memory.max": limit_bytes, "memory.swap.max": 0}
            if self.unified
            else {"memory.limit_in_bytes": limit_bytes, "memory.memsw.limit_in_bytes": limit_bytes}
        )
        for name, value in files.items():
            if "sw" not in name or self.limits_swap(path):
                (group / name).write_text(str(value))

    def _directory(self, controller: str, path: str) -> Path:
        return _below(self.controllers[controller], path)


def _name_loggers(path: str) -> str:
    task, _, container_id = path.rpartition("/")
    return f"{task}/{_LOGGERS}/{container_id}"


def plan_cpu_quota_us(cpu_units: int) -> int:
    """Return how much of `CPU_PERIOD_US` a task may compute, on all processors together."""
    return max(cpu_units * CPU_PERIOD_US // 1024, _MIN_CPU_QUOTA_US)


def read_oom_kills(file: Path) -> int:
    """Return the count in a group's `memory.events` or `memory.oom_control`; 0 if it's gone."""
    try:
        text = file.read_text()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV}:  # the latter: it went while it was open
            return 0
        raise
    counts = dict(line.split(maxsplit=1) for line in text.splitlines())
    return int(counts.get("oom_kill", 0))


def read_cgroups() -> Cgroups:
    """Find the control groups of this machine."""
    text = Path("/proc/self/mountinfo").read_text()
    unified = parse_unified_mount(text)
    names = (unified / "cgroup.controllers").read_text().split() if unified else []
    return parse_cgroups(text, tuple(names))


def parse_unified_mount(mountinfo: str) -> Path | None:
    """Return where the v2 tree is mounted."""
    return next((point for point, kind, _ in _mounts(mountinfo) if kind == "cgroup2"), None)


def parse_cgroups(mountinfo: str, unified_controllers: tuple[str, ...]) -> Cgroups:
    """Describe the machine from its mounts and the controllers that its v2 tree has."""
    v1: dict[str, Path] = {}
    trees: list[Path] = []
    for point, kind, options in _mounts(mountinfo):
        if kind == "cgroup":
            v1 |= dict.fromkeys(options, point)
            trees.append(point)
    unified = parse_unified_mount(mountinfo)
    if unified:
        trees.append(unified)
    if unified and not v1:
        return Cgroups(
            trees=(unified,), controllers=dict.fromkeys(unified_controllers, unified), unified=True
        )
    return Cgroups(trees=tuple(dict.fromkeys(trees)), controllers=v1, unified=False)


def _mounts(mountinfo: str) -> Iterator[tuple[Path, str, list[str]]]:
    """Mount point, type, and options of each tree, as far as the whole tree is mounted.

    Source: proc(5), /proc/[pid]/mountinfo.
    """
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if kind in {"cgroup", "cgroup2"} and root == "/":
            yield Path(point), kind, options.split(",")


def _below(tree: Path, path: str) -> Path:
    return tree / path.lstrip("/")


def walk_up(group: Path) -> Iterator[Path]:
    """The groups below one and itself, children first."""
    for directory, _, _ in os.walk(group, topdown=False):
        yield Path(directory)


def read_processes(group: Path) -> list[int]:
    """Return who is right in a group, by process id; nobody if it's gone."""
    try:
        text = (group / "cgroup.procs").read_text()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV}:  # the latter: it went while it was open
            return []
        raise
    return [pid for pid in map(int, text.split()) if pid > 0]  # 0 is one that we can't see


def kill_processes(group: Path) -> None:
    """Kill what is right in a group."""
    for pid in read_processes(group):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove_group(group: Path) -> bool:
    """Return whether the group is gone now."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
