"""Which way the control groups of tasks are made here: by systemd, or in the tree itself."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from fargate_agent.runtime.cgroup import Cgroups, read_cgroups
from fargate_agent.runtime.members import kill_members
from fargate_agent.runtime.slices import Slices

CgroupDriverName = Literal["systemd", "cgroupfs"]

_BOOTED: Final = Path("run/systemd/system")
"""A directory where systemd runs. Source: sd_booted(3)."""

_BUS: Final = Path("run/dbus/system_bus_socket")
"""Source: D-Bus specification, "System message bus"."""


class CgroupDriverError(Exception):
    """The cgroup driver that is asked for can't work on this host."""


class CgroupDriver(Protocol):
    """Makes, bounds and removes the control groups of tasks.

    A path is that of a plan: `/ecs/<task id>` or `/ecs/<task id>/<container id>`. All functions
    block, and raise OSError if the kernel or systemd refused, or TimeoutError.
    """

    @property
    def name(self) -> str:
        """`systemd` or `cgroupfs`, as runC says it."""
        ...

    def exists(self, path: str) -> bool:
        """Whether this driver has made the group, and it is there."""
        ...

    def render_path(self, path: str) -> str:
        """Return the `cgroupsPath` of a container for runC."""
        ...

    def ensure(self, path: str, *, memory_mib: int | None, pids_max: int) -> None:
        """Make a task's group; its memory and its processes are bounded from now on."""
        ...

    def ensure_container(
        self, path: str, *, cpu_shares: int, memory_reservation_mib: int | None
    ) -> None:
        """Make what runC doesn't make itself of a container's group."""
        ...

    def hold_loggers(self, path: str) -> AbstractContextManager[str]:
        """Return the group for the shim and the logger of a container, as containerd takes it.

        It is there while the body runs, and afterwards as long as somebody is in it. It counts for
        the task, and not for the container.
        """
        ...

    def find_loggers(self, path: str) -> frozenset[int]:
        """Return the process ids of who is in that group."""
        ...

    def find_processes(self, path: str) -> frozenset[int]:
        """Return the process ids of all that runs in a container's group and below it."""
        ...

    def bound_cpu(self, path: str, cpu_units: int) -> None:
        """Bound the processors of a task's group."""
        ...

    def limits_swap(self, path: str) -> bool:
        """Whether a group that exists has a limit on swap."""
        ...

    def read_oom_kills(self, path: str) -> int:
        """Return how many processes of a group were killed for want of memory; 0 if it's gone."""
        ...

    def locate(self, path: str) -> str:
        """Return where a group is in its tree, be it gone or not; see proc(5), cgroup."""
        ...

    def remove(self, path: str, deadline_s: float) -> None:
        """Remove a task's group and all below it; kill what still runs in it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupDrivers:
    """The drivers that work on this host. The first makes the groups of new tasks.

    The others are there for tasks that were begun under another setting: which driver a task has
    is told by the group that exists.
    """

    cgroups: Cgroups
    drivers: tuple[CgroupDriver, ...]

    def of(self, path: str) -> CgroupDriver:
        """Return the driver of a task, given the path of its group or of one of its containers'."""
        task_path = "/".join(path.split("/")[:3])
        made = (driver for driver in self.drivers if driver.exists(task_path))
        return next(made, self.drivers[0])

    def kill(self, path: str, deadline_s: float) -> None:
        """Kill what runs in the group of a container, and wait until it is gone.

        Raises:
            TimeoutError: something still runs after `deadline_s`.
        """
        kill_members(self.of(path).locate(path), deadline_s)

    def remove(self, path: str, deadline_s: float) -> None:
        """Remove a task's group, whichever driver made it.

        Raises:
            OSError: the kernel or systemd refused.
            TimeoutError: it is still in use after `deadline_s`.
        """
        for driver in self.drivers:
            if driver is self.drivers[0] or driver.exists(path):
                driver.remove(path, deadline_s)

    def __str__(self) -> str:
        version = "v2" if self.cgroups.unified else "v1"
        return f"cgroup {version}, driver {self.drivers[0].name}"


def read_cgroup_drivers(wanted: CgroupDriverName | None) -> CgroupDrivers:
    """Find the drivers of this host; None leaves it to the host which is the first.

    Raises:
        CgroupDriverError: systemd is wanted, and can't be had.
    """
    cgroups = read_cgroups()
    return plan_cgroup_drivers(wanted, cgroups, find_obstacle(cgroups, Path("/")))


def plan_cgroup_drivers(
    wanted: CgroupDriverName | None, cgroups: Cgroups, obstacle: str | None
) -> CgroupDrivers:
    """Order the drivers; `obstacle` is what keeps systemd from being one.

    Raises:
        CgroupDriverError: systemd is wanted, and can't be had.
    """
    if obstacle is not None:
        if wanted == "systemd":
            raise CgroupDriverError(f"cgroup_driver is 'systemd', but {obstacle}")
        return CgroupDrivers(cgroups=cgroups, drivers=(cgroups,))
    slices = Slices(tree=cgroups.trees[0])
    return CgroupDrivers(
        cgroups=cgroups, drivers=(cgroups, slices) if wanted == "cgroupfs" else (slices, cgroups)
    )


def find_obstacle(cgroups: Cgroups, root: Path) -> str | None:
    """Return why the slices of systemd can't be used on the host with this root directory."""
    if not (root / _BOOTED).is_dir():
        return "systemd doesn't run on this host"
    if not cgroups.unified:
        return "this host has cgroup v1"
    if not (root / _BUS).is_socket():
        return f"this host has no system bus at /{_BUS}"
    return None
