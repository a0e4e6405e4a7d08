"""What a container uses, in the shape of Docker's stats; the second half of task metadata.

Members without a default are always there, be they null; the others are there when they are set.

Source: moby, api/types/container/stats.go; amazon-ecs-agent, ecs-agent/stats/types.go.
"""

from pydantic import BaseModel, ConfigDict


class StatsShape(BaseModel):
    """Base of every shape; what was not set is left out."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    def to_json(self) -> bytes:
        """Return the shape as it goes over the wire."""
        return self.model_dump_json(exclude_unset=True).encode()


class PidsStats(StatsShape):
    """Processes and threads."""

    current: int
    limit: int = 0


class BlockEntry(StatsShape):
    """One counter of one block device."""

    major: int
    minor: int
    op: str
    value: int


BlockEntries = tuple[BlockEntry, ...]


class BlockStats(StatsShape):
    """Block devices. Only the first two are counted; Docker names the others.

    Empty where nothing was counted, as in AWS's example: programs iterate over them. Source: ECS
    developer guide, task metadata endpoint version 4 for tasks on Fargate.
    """

    io_service_bytes_recursive: BlockEntries
    io_serviced_recursive: BlockEntries
    io_queue_recursive: BlockEntries
    io_service_time_recursive: BlockEntries
    io_wait_time_recursive: BlockEntries
    io_merged_recursive: BlockEntries
    io_time_recursive: BlockEntries
    sectors_recursive: BlockEntries


class StorageStats(StatsShape):
    """Always empty: only Windows fills it."""


class CpuUsage(StatsShape):
    """Nanoseconds."""

    total_usage: int
    percpu_usage: tuple[int, ...] = ()
    usage_in_kernelmode: int
    usage_in_usermode: int


class ThrottlingData(StatsShape):
    """How often, and for how many nanoseconds, the CPU limit held the container up."""

    periods: int
    throttled_periods: int
    throttled_time: int


class CpuStats(StatsShape):
    """CPU time of the container, and of the whole machine."""

    cpu_usage: CpuUsage
    system_cpu_usage: int = 0
    """Nanoseconds."""
    online_cpus: int = 0
    throttling_data: ThrottlingData


class MemoryStats(StatsShape):
    """Bytes."""

    usage: int
    max_usage: int
    stats: dict[str, int]
    failcnt: int
    limit: int


class NetworkStats(StatsShape):
    """What went through one interface of the task."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class NetworkRateStats(StatsShape):
    """Over all interfaces, between the last two samples."""

    rx_bytes_per_sec: float
    tx_bytes_per_sec: float


class ContainerStats(StatsShape):
    """One sample of one container."""

    read: str
    preread: str
    pids_stats: PidsStats
    blkio_stats: BlockStats
    num_procs: int
    storage_stats: StorageStats
    cpu_stats: CpuStats
    precpu_stats: CpuStats
    memory_stats: MemoryStats
    name: str
    id: str
    networks: dict[str, NetworkStats] = {}
    network_rate_stats: NetworkRateStats | None = None
