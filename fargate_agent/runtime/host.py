"""What this host lets a container have.

containerd hands its own rights down: to its shims, from there to runC, and runC can give a
container no more than it has. So what counts are containerd's rights, not the agent's. What is
missing is done without, unless the task would be less isolated for it: then it is refused.
"""

import resource
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent import apparmor
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, UlimitPlan
from fargate_agent.runtime.init import find_init

DEFAULT_NOFILE: Final = UlimitPlan(name="nofile", soft=65535, hard=65535)
"""Source: ECS developer guide, task definition parameters for Fargate, resource limits."""

DEFAULT_CAPABILITIES: Final = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
"""Source: Docker documentation, "Runtime privilege and Linux capabilities"."""

_CONNECT_TIMEOUT_S: Final = 5.0

_LIMITS: Final[Mapping[str, str]] = {
    "core": "Max core file size",
    "cpu": "Max cpu time",
    "data": "Max data size",
    "fsize": "Max file size",
    "locks": "Max file locks",
    "memlock": "Max locked memory",
    "msgqueue": "Max msgqueue size",
    "nice": "Max nice priority",
    "nofile": "Max open files",
    "nproc": "Max processes",
    "rss": "Max resident set",
    "rtprio": "Max realtime priority",
    "rttime": "Max realtime timeout",
    "sigpending": "Max pending signals",
    "stack": "Max stack size",
}
"""Limits of a task definition, and their names in the kernel's /proc/<pid>/limits."""

_CAPABILITY_NAMES: Final = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""

_CAPABILITIES: Final = tuple(_CAPABILITY_NAMES.split())
"""In the order of their bits. Source: linux/capability.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """The most a container can be given here."""

    rlimits: Mapping[str, int]
    """Highest hard limit by name, e.g. `nofile`; what is absent has no bound."""
    capabilities: frozenset[str]
    """Names without `CAP_`."""
    limits_swap: bool
    """Whether the kernel can keep a container from swapping."""
    pids_limit: int | None = None
    """Most processes and threads of a container; None where the kernel can't count them."""
    init_program: Path | None = None
    """What containers have as their init; None where there is none."""
    apparmor_profile: str | None = None
    """None where AppArmor is off, or hasn't got it."""
    lacks_apparmor_profile: bool = False
    """Whether AppArmor is on and hasn't got it."""

    def fit_ulimits(self, container: ContainerPlan) -> tuple[UlimitPlan, ...]:
        """Return the container's limits and the default ones, cut to what is possible."""
        return tuple(self._fit(ulimit) for ulimit in plan_ulimits(container))

    def fit_capabilities(self, container: ContainerPlan) -> tuple[str, ...]:
        """Return the container's capabilities that can be granted, as `CAP_…`."""
        granted = plan_capabilities(container) & self.capabilities
        return tuple(f"CAP_{name}" for name in sorted(granted))

    def shortfalls(self, container: ContainerPlan) -> Iterator[tuple[str, str]]:
        """Say what the container doesn't get: what is missing here, and the effect of it."""
        yield from self._find_shortfalls(plan_ulimits(container), plan_capabilities(container))
        if self.pids_limit is None:
            yield (
                "this host has no cgroup controller pids",
                "a task may start processes until the machine has no room for more",
            )

    def default_shortfalls(self) -> Iterator[tuple[str, str]]:
        """Say what a container doesn't get that asks for nothing special."""
        return self._find_shortfalls((DEFAULT_NOFILE,), frozenset(DEFAULT_CAPABILITIES))

    def _find_shortfalls(
        self, ulimits: Iterable[UlimitPlan], capabilities: frozenset[str]
    ) -> Iterator[tuple[str, str]]:
        for wanted in ulimits:
            granted = self._fit(wanted)
            if granted != wanted:
                yield (
                    f"containerd may not raise its {wanted.name} limit above {granted.hard}",
                    f"containers get a {wanted.name} limit of {granted.hard} at most",
                )
        if self.lacks_apparmor_profile:
            yield apparmor.UNCONFINED
        for name in sorted(capabilities - self.capabilities):
            yield (
                f"containerd has no CAP_{name}",
                f"containers that should have CAP_{name} go without it",
            )

    def _fit(self, ulimit: UlimitPlan) -> UlimitPlan:
        bound = self.rlimits.get(ulimit.name)
        if bound is None:
            return ulimit
        return UlimitPlan(
            name=ulimit.name, soft=_lower(ulimit.soft, bound), hard=_lower(ulimit.hard, bound)
        )


def plan_ulimits(container: ContainerPlan) -> tuple[UlimitPlan, ...]:
    """Return the limits that a container should have: its own, and the default for the others."""
    wanted = {DEFAULT_NOFILE.name: DEFAULT_NOFILE} | {u.name: u for u in container.ulimits}
    return tuple(wanted.values())


def plan_capabilities(container: ContainerPlan) -> frozenset[str]:
    """Return the default capabilities with the container's changes; names without `CAP_`.

    `ALL` stands for every one; dropping it leaves what is added.
    """
    added, dropped = _names(container.add_capabilities), _names(container.drop_capabilities)
    everything = frozenset(_CAPABILITIES)
    base = everything if "ALL" in added else frozenset(DEFAULT_CAPABILITIES)
    kept = frozenset[str]() if "ALL" in dropped else base - dropped
    return (kept | added) & everything


def read_host_limits(
    containerd_address: Path, *, limits_swap: bool, pids_limit: int | None
) -> HostLimits:
    """Ask the kernel what containerd may do. Blocks.

    Raises:
        OSError: containerd isn't there.
    """
    process = Path("/proc") / str(_read_peer_pid(containerd_address))
    capabilities = parse_capabilities((process / "status").read_text())
    nr_open = int(Path("/proc/sys/fs/nr_open").read_text())
    bounds = parse_rlimits((process / "limits").read_text())
    if "SYS_RESOURCE" in capabilities:
        bounds = {}
    profile = apparmor.find_profile()
    return HostLimits(
        rlimits={**bounds, "nofile": min(nr_open, bounds.get("nofile", nr_open))},
        capabilities=capabilities,
        limits_swap=limits_swap,
        pids_limit=pids_limit,
        init_program=find_init(),
        apparmor_profile=profile,
        lacks_apparmor_profile=profile is None and apparmor.is_on(),
    )


def parse_rlimits(text: str) -> dict[str, int]:
    """Return the hard limits that bind, from a /proc/<pid>/limits."""
    bounds: dict[str, int] = {}
    for name, title in _LIMITS.items():
        line = next((line for line in text.splitlines() if line.startswith(title)), "")
        columns = line.removeprefix(title).split()
        if len(columns) > 1 and columns[1] != "unlimited":
            bounds[name] = int(columns[1])
    return bounds


def parse_capabilities(text: str) -> frozenset[str]:
    """Return the names of the permitted capabilities, from a /proc/<pid>/status."""
    line = next(line for line in text.splitlines() if line.startswith("CapPrm:"))
    bits = int(line.split()[1], 16)
    return frozenset(name for bit, name in enumerate(_CAPABILITIES) if bits >> bit & 1)


def require_isolation(missing_controllers: Iterable[str]) -> None:
    """Refuse a host on which a task would be less isolated than it has to be.

    Raises:
        ResourceInitializationError: saying what is missing.
    """
    missing = [f"the cgroup controller '{name}'" for name in missing_controllers]
    if not Path("/proc/sys/kernel/seccomp").is_dir():
        missing.append("seccomp in the kernel")
    if missing:
        raise ResourceInitializationError(
            f"this host can't isolate tasks from each other: it lacks {', '.join(missing)}"
        )


def _read_peer_pid(address: Path) -> int:
    """The process that listens on a unix socket; our own where the kernel doesn't say."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_TIMEOUT_S)
        connection.connect(str(address))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid: int = struct.unpack("iII", credentials)[0]
    return pid


def _names(capabilities: Iterable[str]) -> frozenset[str]:
    return frozenset(name.upper().removeprefix("CAP_") for name in capabilities)


def _lower(value: int, bound: int) -> int:
    return bound if value == resource.RLIM_INFINITY else min(value, bound)
