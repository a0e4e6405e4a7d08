"""What a container uses, the same for cgroup v1 and v2 as far as the kernel lets it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any

from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.containerd.pb import cgroups_v1_pb2, cgroups_v2_pb2

V1_TYPE_URL: Final = "io.containerd.cgroups.v1.Metrics"
V2_TYPE_URL: Final = "io.containerd.cgroups.v2.Metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupMetrics:
    """Counts since the container began, and what it holds now."""

    cgroup_version: int
    cpu_total_ns: int
    cpu_user_ns: int
    cpu_kernel_ns: int
    cpu_per_core_ns: tuple[int, ...]
    """Empty with cgroup v2, which doesn't count per core."""
    throttle_periods: int
    throttled_periods: int
    throttled_ns: int
    memory_bytes: int
    memory_max_bytes: int
    """Most it ever held; 0 with cgroup v2, where containerd doesn't tell."""
    memory_limit_bytes: int
    """0 is unlimited."""
    memory_failures: int
    """How often it hit its limit; with cgroup v2, how often that was the end of some process, which
    is what Docker tells. Source: moby, daemon/stats_unix.go."""
    oom_kills: int
    """How many of its processes the kernel killed for memory."""
    memory_stats: Mapping[str, int]
    """As in the cgroup's `memory.stat`."""
    pids: int
    pids_limit: int
    """0 is unlimited."""
    block_bytes: tuple[tuple[int, int, str, int], ...]
    """Major, minor, `read` or `write`, bytes."""
    block_operations: tuple[tuple[int, int, str, int], ...]
    """Major, minor, `read` or `write`, count."""


def metrics_from_wire(data: Any) -> CgroupMetrics:
    """Decode what the shim measured.

    Raises:
        ContainerdError: it is of a kind that isn't known here.
    """
    if data.type_url == V1_TYPE_URL:
        return _from_v1(cgroups_v1_pb2.Metrics.FromString(data.value))
    if data.type_url == V2_TYPE_URL:
        return _from_v2(cgroups_v2_pb2.Metrics.FromString(data.value))
    raise ContainerdError(f"read metrics: unknown kind {data.type_url}")


_V1_STAT_NAMES: Final = {
    "pg_pg_in": "pgpgin",
    "pg_pg_out": "pgpgout",
    "pg_fault": "pgfault",
    "pg_maj_fault": "pgmajfault",
    "hierarchical_swap_limit": "hierarchical_memsw_limit",
}
"""Names of containerd that are not the kernel's.

Source: containerd cgroups, memory.go, `memoryStats`; Linux, mm/memcontrol-v1.c.
"""

_V2_NOT_STATS: Final = frozenset({"usage", "usage_limit"})

_UNLIMITED: Final = (1 << 63) - (1 << 20)
"""No limit, and above: v1 has the largest number of whole pages, v2 says `max`, which containerd
makes 2^64 - 1 of. Source: Linux, `PAGE_COUNTER_MAX`; containerd cgroups, v2/utils.go.
"""


def _from_v1(message: cgroups_v1_pb2.Metrics) -> CgroupMetrics:
    cpu, memory = message.cpu, message.memory
    return CgroupMetrics(
        cgroup_version=1,
        cpu_total_ns=cpu.usage.total,
        cpu_user_ns=cpu.usage.user,
        cpu_kernel_ns=cpu.usage.kernel,
        cpu_per_core_ns=tuple(cpu.usage.per_cpu),
        throttle_periods=cpu.throttling.periods,
        throttled_periods=cpu.throttling.throttled_periods,
        throttled_ns=cpu.throttling.throttled_time,
        memory_bytes=memory.usage.usage,
        memory_max_bytes=memory.usage.max,
        memory_limit_bytes=_limit(memory.usage.limit),
        memory_failures=memory.usage.failcnt,
        oom_kills=message.memory_oom_control.oom_kill,
        memory_stats=_v1_stats(memory),
        pids=message.pids.current,
        pids_limit=_limit(message.pids.limit),
        block_bytes=_v1_block(message.blkio.io_service_bytes_recursive),
        block_operations=_v1_block(message.blkio.io_serviced_recursive),
    )


def _limit(value: int) -> int:
    return 0 if value >= _UNLIMITED else value


def _v1_stats(memory: cgroups_v1_pb2.MemoryStat) -> dict[str, int]:
    """Name the fields as the kernel does; zero fields count, so all come from the descriptor."""
    stats = {}
    for name in memory.DESCRIPTOR.fields_by_name:
        if name != "usage":
            own, prefix = (name[6:], "total_") if name.startswith("total_") else (name, "")
            stats[prefix + _V1_STAT_NAMES.get(own, own)] = getattr(memory, name)
    return stats


def _v1_block(
    entries: Iterable[cgroups_v1_pb2.BlkIOEntry],
) -> tuple[tuple[int, int, str, int], ...]:
    return tuple(
        (entry.major, entry.minor, entry.op.lower(), entry.value)
        for entry in entries
        if entry.op.lower() in {"read", "write"}
    )


def _from_v2(message: cgroups_v2_pb2.Metrics) -> CgroupMetrics:
    cpu, memory, devices = message.cpu, message.memory, message.io.usage
    return CgroupMetrics(
        cgroup_version=2,
        cpu_total_ns=cpu.usage_usec * 1000,
        cpu_user_ns=cpu.user_usec * 1000,
        cpu_kernel_ns=cpu.system_usec * 1000,
        cpu_per_core_ns=(),
        throttle_periods=cpu.nr_periods,
        throttled_periods=cpu.nr_throttled,
        throttled_ns=cpu.throttled_usec * 1000,
        memory_bytes=memory.usage,
        memory_max_bytes=0,
        memory_limit_bytes=_limit(memory.usage_limit),
        memory_failures=message.memory_events.oom,
        oom_kills=message.memory_events.oom_kill,
        memory_stats={
            name: getattr(memory, name)
            for name in memory.DESCRIPTOR.fields_by_name
            if name not in _V2_NOT_STATS
        },
        pids=message.pids.current,
        pids_limit=_limit(message.pids.limit),
        block_bytes=tuple(
            entry
            for d in devices
            for entry in (
                (d.major, d.minor, "read", d.rbytes),
                (d.major, d.minor, "write", d.wbytes),
            )
        ),
        block_operations=tuple(
            entry
            for d in devices
            for entry in ((d.major, d.minor, "read", d.rios), (d.major, d.minor, "write", d.wios))
        ),
    )
