"""The control groups of tasks where systemd owns the tree: slices, and runC's systemd driver.

    ecstasks.slice                                 all tasks; may have a unit file
      ecstasks-<task id>.slice                     the task, with its limits
        ecstasks-<task id>-<number>.slice          a container, with its share and its reservation
          ecs-<task id>-<number>.scope             made by runC, with the container's limits
        ecs-<task id>-<number>-logger.scope        its shim and its logger

A scope vanishes by itself when its last process ends. The slice around it stays until the task is
removed, and counts what happened in the scope, so nobody comes too late to learn of an OOM kill.

The groups are asked for and named as those of the cgroupfs driver, `/ecs/<task id>/<container id>`.
All functions block.

Source: amazon-ecs-agent, agent/api/task/task_linux.go, which names slices `ecstasks-<task id>`;
systemd.slice(5); systemd.resource-control(5).
"""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fargate_agent.runtime.cgroup import (
    CPU_PERIOD_US,
    POLL_S,
    kill_processes,
    plan_cpu_quota_us,
    read_oom_kills,
    read_processes,
    remove_group,
    walk_up,
)

if TYPE_CHECKING:
    from fargate_agent.runtime.systemd import Manager

CALL_DEADLINE_S: Final = 20.0
"""For what systemd does in milliseconds, unless it is starting half of the machine."""

_ROOT: Final = "ecstasks"
_SCOPE_PREFIX: Final = "ecs"
_US_PER_S: Final = 1_000_000

_MIN_SHARES: Final = 2
_MAX_SHARES: Final = 262_144
_MAX_WEIGHT: Final = 10_000
"""Source: Linux, kernel/sched/sched.h, `MIN_SHARES`, `MAX_SHARES`; cgroup-v2.rst, `cpu.weight`."""


def open_systemd(deadline_s: float) -> "AbstractContextManager[Manager]":
    """Connect to systemd; its library is loaded only where systemd is asked for something."""
    from fargate_agent.runtime.systemd import open_manager

    return open_manager(deadline_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """The cgroup driver `systemd`."""

    tree: Path
    """Where the v2 tree is mounted."""
    connect: "Callable[[float], AbstractContextManager[Manager]]" = open_systemd
    name: str = "systemd"

    def exists(self, path: str) -> bool:
        return self._directory(path).exists()

    def render_path(self, path: str) -> str:
        """Source: runc, docs/systemd.md: `slice:prefix:name`."""
        return f"{render_slice(path)}:{_SCOPE_PREFIX}:{path.rpartition('/')[2]}"

    def ensure(self, path: str, *, memory_mib: int | None, pids_max: int) -> None:
        memory = (
            [("MemoryMax", ("t", memory_mib << 20)), ("MemorySwapMax", ("t", 0))]
            if memory_mib is not None
            else []
        )
        with self.connect(CALL_DEADLINE_S) as systemd:
            systemd.start_slice(
                render_slice(path),
                [
                    ("Description", ("s", f"ECS task {path}")),
                    *_COUNTED,
                    *memory,
                    ("TasksMax", ("t", pids_max)),
                ],
            )

    def ensure_container(
        self, path: str, *, cpu_shares: int, memory_reservation_mib: int | None
    ) -> None:
        """What a container has relative to its siblings counts where they are siblings."""
        reservation_bytes = (memory_reservation_mib or 0) << 20
        with self.connect(CALL_DEADLINE_S) as systemd:
            systemd.start_slice(
                render_slice(path),
                [
                    ("Description", ("s", f"ECS container {path}")),
                    *_COUNTED,
                    ("CPUWeight", ("t", plan_cpu_weight(cpu_shares))),
                    ("MemoryLow", ("t", reservation_bytes)),
                ],
            )

    @contextmanager
    def hold_loggers(self, path: str) -> Iterator[str]:
        """Make a scope in the slice of the task, and keep a process in it until others have come.

        A scope needs a process from its beginning. That of the agent's ends by itself if the agent
        dies. Others may put processes into the scope because it is delegated: containerd does,
        with each shim that it starts.
        """
        directory = self._logger_directory(path)
        with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as it:
            with self.connect(CALL_DEADLINE_S) as systemd:
                systemd.start_scope(
                    directory.name,
                    [
                        ("Description", ("s", f"Logger of ECS container {path}")),
                        ("Slice", ("s", directory.parent.name)),
                        ("Delegate", ("b", True)),
                        ("PIDs", ("au", [it.pid])),
                        *_COUNTED,
                    ],
                )
            yield f"/{directory.relative_to(self.tree)}"

    def find_loggers(self, path: str) -> frozenset[int]:
        groups = walk_up(self._logger_directory(path))
        return frozenset(pid for group in groups for pid in read_processes(group))

    def find_processes(self, path: str) -> frozenset[int]:
        groups = walk_up(self._directory(path))
        return frozenset(pid for group in groups for pid in read_processes(group))

    def locate(self, path: str) -> str:
        return f"/{self._directory(path).relative_to(self.tree)}"

    def bound_cpu(self, path: str, cpu_units: int) -> None:
        quota_us_per_s = plan_cpu_quota_us(cpu_units) * _US_PER_S // CPU_PERIOD_US
        with self.connect(CALL_DEADLINE_S) as systemd:
            systemd.set_properties(
                render_slice(path),
                [
                    ("CPUQuotaPerSecUSec", ("t", quota_us_per_s)),
                    ("CPUQuotaPeriodUSec", ("t", CPU_PERIOD_US)),
                ],
            )

    def limits_swap(self, path: str) -> bool:
        return (self._directory(path) / "memory.swap.max").exists()

    def read_oom_kills(self, path: str) -> int:
        return read_oom_kills(self._directory(path) / "memory.events")

    def remove(self, path: str, deadline_s: float) -> None:
        end = time.monotonic() + deadline_s
        directory = self._directory(path)
        while _is_populated(directory):
            _kill_all(directory)
            if time.monotonic() > end:
                raise TimeoutError(f"slice of {path} is still in use after {deadline_s:g} s")
            time.sleep(POLL_S)
        with self.connect(deadline_s) as systemd:
            units = _plan_patterns(path)
            if any(state != "failed" for state in systemd.find_units(units).values()):
                systemd.stop(render_slice(path))
            for name, state in systemd.find_units(units).items():
                if state == "failed":
                    systemd.forget_failure(name)
        for group in walk_up(directory):  # systemd leaves what it forgot, or found in use
            remove_group(group)

    def _logger_directory(self, path: str) -> Path:
        task, _, container_id = path.rpartition("/")
        return self._directory(task) / f"{_SCOPE_PREFIX}-{container_id}-logger.scope"

    def _directory(self, path: str) -> Path:
        """A slice lies in those whose names are the beginning of its own."""
        directory = self.tree
        parts = render_slice(path).removesuffix(".slice").split("-")
        for count in range(1, len(parts) + 1):
            directory /= "-".join(parts[:count]) + ".slice"
        return directory


_COUNTED: Final = (
    ("CPUAccounting", ("b", True)),
    ("MemoryAccounting", ("b", True)),
    ("TasksAccounting", ("b", True)),
)
"""Keeps the controllers, and so the counters, in a slice whose scope has vanished."""


def render_slice(path: str) -> str:
    """Return the slice of a task or a container, from `/ecs/<task id>[/<container id>]`.

    A dash in the name of a slice means one slice in another, so the dashes of ids become dots.
    """
    _, _, task, *containers = path.split("/")
    parts = [task, *(container.removeprefix(f"{task}-") for container in containers)]
    return "-".join([_ROOT, *(part.replace("-", ".") for part in parts)]) + ".slice"


def plan_cpu_weight(cpu_shares: int) -> int:
    """Return the weight of cgroup v2 for the shares of v1, from lowest to highest in proportion.

    Source: runc 1.1, libcontainer/cgroups/utils.go, `ConvertCPUSharesToCgroupV2Value`.
    """
    return 1 + (cpu_shares - _MIN_SHARES) * (_MAX_WEIGHT - 1) // (_MAX_SHARES - _MIN_SHARES)


def _plan_patterns(path: str) -> tuple[str, ...]:
    name = render_slice(path)
    task = path.rpartition("/")[2]
    return name, f"{name.removesuffix('.slice')}-*.slice", f"{_SCOPE_PREFIX}-{task}-*.scope"


def _is_populated(group: Path) -> bool:
    """Whether a process is in a group or below it."""
    with contextlib.suppress(FileNotFoundError):
        return "populated 1" in (group / "cgroup.events").read_text()
    return False


def _kill_all(group: Path) -> None:
    """Kill all that is below a group, at once where the kernel can.

    Source: Linux 5.14, Documentation/admin-guide/cgroup-v2.rst, `cgroup.kill`.
    """
    kill = group / "cgroup.kill"
    if kill.exists():
        with contextlib.suppress(FileNotFoundError):
            kill.write_text("1")
    else:
        for one in walk_up(group):
            kill_processes(one)
