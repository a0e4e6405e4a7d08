"""What containerd measures, as the agent hands it on."""

from datetime import datetime

from fargate_agent.containerd.metrics import CgroupMetrics
from fargate_agent.drivers import ContainerUsage


def render_usage(metrics: CgroupMetrics, read_at: datetime) -> ContainerUsage:
    """Return the usage that stands in the metrics of one container."""
    return ContainerUsage(
        read_at=read_at,
        cpu_total_ns=metrics.cpu_total_ns,
        cpu_user_ns=metrics.cpu_user_ns,
        cpu_kernel_ns=metrics.cpu_kernel_ns,
        cpu_per_core_ns=metrics.cpu_per_core_ns,
        throttle_periods=metrics.throttle_periods,
        throttled_periods=metrics.throttled_periods,
        throttled_ns=metrics.throttled_ns,
        memory_bytes=metrics.memory_bytes,
        memory_max_bytes=metrics.memory_max_bytes,
        memory_limit_bytes=metrics.memory_limit_bytes,
        memory_failures=metrics.memory_failures,
        memory_stats=metrics.memory_stats,
        pids=metrics.pids,
        pids_limit=metrics.pids_limit,
        block_io=metrics.block_bytes,
        block_operations=metrics.block_operations,
    )
