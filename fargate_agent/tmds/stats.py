"""Stats of a container, made of two samples; pure."""

import os
from dataclasses import asdict
from typing import Any, Final

from fargate_agent.drivers import ContainerUsage
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.tmds.sampling import Pair, Sample
from fargate_agent.wire.metadata import render_moment
from fargate_agent.wire.stats import (
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

BYTES_PER_MIB: Final = 1024 * 1024


def render_stats(
    task: TaskPlan, container: ContainerPlan, pair: Pair, *, with_rates: bool = True
) -> ContainerStats:
    """Return one container's stats; versions 2 and 3 of the metadata are without rates."""
    sample, previous = pair.later, pair.earlier
    usage = sample.usage
    return ContainerStats(
        read=render_moment(usage.read_at),
        preread=render_moment(previous.usage.read_at),
        pids_stats=PidsStats(current=usage.pids, **_if_any(limit=usage.pids_limit)),
        blkio_stats=_render_block_stats(usage),
        num_procs=0,
        storage_stats=StorageStats(),
        cpu_stats=_render_cpu_stats(sample),
        precpu_stats=_render_cpu_stats(previous),
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
            network_rate_stats=_render_rates(sample, previous) if with_rates else None,
        ),
    )


def _if_any(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - members of any kind
    """Keep what isn't empty, so that the rest isn't set and doesn't appear."""
    return {name: value for name, value in values.items() if value}


def _render_block_stats(usage: ContainerUsage) -> BlockStats:
    return BlockStats(
        io_service_bytes_recursive=_render_entries(usage.block_io),
        io_serviced_recursive=_render_entries(usage.block_operations),
        io_queue_recursive=(),
        io_service_time_recursive=(),
        io_wait_time_recursive=(),
        io_merged_recursive=(),
        io_time_recursive=(),
        sectors_recursive=(),
    )


def _render_entries(
    entries: tuple[tuple[int, int, str, int], ...],
) -> tuple[BlockEntry, ...]:
    return tuple(
        BlockEntry(major=major, minor=minor, op=operation, value=value)
        for major, minor, operation, value in entries
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
