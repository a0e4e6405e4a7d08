"""What the containers of a task use, sampled when somebody asks.

Docker's clients work with two samples. The earlier one is the last that this endpoint has answered
with; who asks for the first time gets none.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fargate_agent.drivers import ContainerUsage
from fargate_agent.network.namespaces import in_thread
from fargate_agent.network.netlink import LinkStats
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.wire.metadata import render_moment
from fargate_agent.wire.stats import (
    NO_TIME,
    BlockEntry,
    BlockStats,
    ContainerStats,
    CpuStats,
    CpuUsage,
    MemoryStats,
    NetworkRateStats,
    NetworkStats,
    PidsStats,
    StorageStats,
    ThrottlingData,
)

NS_PER_S: Final = 1_000_000_000
BYTES_PER_MIB: Final = 1024 * 1024
SYSTEM_CPU_FIELDS: Final = 7
"""In the first line of /proc/stat: user to softirq. Source: moby, daemon/stats_unix.go."""

ReadUsage = Callable[[tuple[ContainerPlan, ...]], Awaitable[Mapping[str, ContainerUsage]]]
"""By container id; those that don't run are missing."""
ReadLinkStats = Callable[[Path], Awaitable[Mapping[str, LinkStats]]]
"""Of a network namespace, by interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a container used at a moment, and the machine with it."""

    usage: ContainerUsage
    system_cpu_ns: int
    links: Mapping[str, LinkStats]


class StatsSampler:
    """Takes samples, and remembers the last one of every container."""

    def __init__(self, read_usage: ReadUsage, read_link_stats: ReadLinkStats) -> None:
        self._read_usage = read_usage
        self._read_link_stats = read_link_stats
        self._last: dict[str, Sample] = {}

    async def sample(
        self, task: TaskPlan, containers: tuple[ContainerPlan, ...]
    ) -> dict[str, ContainerStats]:
        """Return the stats of those of the containers that run, by container id.

        Raises:
            TaskError: the runtime doesn't tell.
            NetlinkError: the kernel doesn't tell.
        """
        usages = await self._read_usage(containers)
        links = await self._read_link_stats(task.netns) if usages else {}
        of_enis = {eni.ifname: links[eni.ifname] for eni in task.enis if eni.ifname in links}
        system_cpu_ns = await in_thread(read_system_cpu_ns)
        answer = {}
        for container in containers:
            if usage := usages.get(container.id):
                sample = Sample(usage=usage, system_cpu_ns=system_cpu_ns, links=of_enis)
                answer[container.id] = render_stats(
                    task, container, sample, self._last.get(container.id)
                )
                self._last[container.id] = sample
        return answer

    def forget(self, containers: Iterable[ContainerPlan]) -> None:
        """Drop what is remembered of containers that have ended."""
        for container in containers:
            self._last.pop(container.id, None)


def read_system_cpu_ns() -> int:
    """Return the time that all CPUs together have spent since boot, idle or not. Blocks briefly."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        fields = file.readline().split()[1 : 1 + SYSTEM_CPU_FIELDS]
    return sum(map(int, fields)) * (NS_PER_S // os.sysconf("SC_CLK_TCK"))


def render_stats(
    task: TaskPlan, container: ContainerPlan, sample: Sample, previous: Sample | None
) -> ContainerStats:
    """Return one container's stats; `previous` is an earlier sample of the same container."""
    usage = sample.usage
    return ContainerStats(
        read=render_moment(usage.read_at),
        preread=render_moment(previous.usage.read_at) if previous else NO_TIME,
        pids_stats=PidsStats(current=usage.pids, **_if_any(limit=usage.pids_limit)),
        blkio_stats=_render_block_stats(usage),
        num_procs=0,
        storage_stats=StorageStats(),
        cpu_stats=_render_cpu_stats(sample),
        precpu_stats=_render_cpu_stats(previous) if previous else _NO_CPU_STATS,
        memory_stats=MemoryStats(
            usage=usage.memory_bytes,
            max_usage=usage.memory_max_bytes,
            stats=dict(usage.memory_stats),
            failcnt=usage.memory_failures,
            limit=_memory_limit_bytes(task, usage),
        ),
        name=container.name,
        id=container.id,
        **_if_any(
            networks={name: NetworkStats(**asdict(link)) for name, link in sample.links.items()},
            network_rate_stats=_render_rates(sample, previous) if previous else None,
        ),
    )


def _if_any(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - members of any kind
    """Keep what isn't empty, so that the rest isn't set and doesn't appear."""
    return {name: value for name, value in values.items() if value}


def _render_block_stats(usage: ContainerUsage) -> BlockStats:
    return BlockStats(
        io_service_bytes_recursive=_render_entries(usage.block_io),
        io_serviced_recursive=_render_entries(usage.block_operations),
        io_queue_recursive=None,
        io_service_time_recursive=None,
        io_wait_time_recursive=None,
        io_merged_recursive=None,
        io_time_recursive=None,
        sectors_recursive=None,
    )


def _render_entries(
    entries: tuple[tuple[int, int, str, int], ...],
) -> tuple[BlockEntry, ...] | None:
    return (
        tuple(
            BlockEntry(major=major, minor=minor, op=operation, value=value)
            for major, minor, operation, value in entries
        )
        or None
    )


def _render_cpu_stats(sample: Sample) -> CpuStats:
    usage = sample.usage
    return CpuStats(
        cpu_usage=CpuUsage(
            total_usage=usage.cpu_total_ns,
            usage_in_kernelmode=usage.cpu_kernel_ns,
            usage_in_usermode=usage.cpu_user_ns,
            **_if_any(percpu_usage=usage.cpu_per_core_ns),
        ),
        system_cpu_usage=sample.system_cpu_ns,
        online_cpus=os.cpu_count() or 1,
        throttling_data=ThrottlingData(
            periods=usage.throttle_periods,
            throttled_periods=usage.throttled_periods,
            throttled_time=usage.throttled_ns,
        ),
    )


_NO_CPU_STATS: Final = CpuStats(
    cpu_usage=CpuUsage(total_usage=0, usage_in_kernelmode=0, usage_in_usermode=0),
    throttling_data=ThrottlingData(periods=0, throttled_periods=0, throttled_time=0),
)


def _memory_limit_bytes(task: TaskPlan, usage: ContainerUsage) -> int:
    """The container's limit or that of its task, whichever is met first; 0 if there is none."""
    limits = [usage.memory_limit_bytes, (task.memory_mib or 0) * BYTES_PER_MIB]
    return min((limit for limit in limits if limit), default=0)


def _render_rates(sample: Sample, previous: Sample) -> NetworkRateStats | None:
    seconds = (sample.usage.read_at - previous.usage.read_at).total_seconds()
    if seconds <= 0:
        return None
    received, sent = _count_bytes(sample)
    received_before, sent_before = _count_bytes(previous)
    return NetworkRateStats(
        rx_bytes_per_sec=(received - received_before) / seconds,
        tx_bytes_per_sec=(sent - sent_before) / seconds,
    )


def _count_bytes(sample: Sample) -> tuple[int, int]:
    links = sample.links.values()
    return sum(link.rx_bytes for link in links), sum(link.tx_bytes for link in links)
