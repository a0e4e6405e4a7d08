"""What an agent tells of what its containers use, every 20 seconds, by the websocket of ACS.

The frames are those of TCS, the websocket that AWS has for this beside ACS.

Source: amazon-ecs-agent, ecs-agent/tcs/model/ecstcs/types.go.
"""

from typing import Annotated, Final

from pydantic import Field

from fargate_agent.wire.message import Message
from fargate_agent.wire.messages import Frame, TaskArnField

BUCKET_S: Final = 20
"""Length of a bucket. Source: amazon-ecs-agent, ecs-agent/tcs/handler, the publishing interval."""
MAX_TASKS: Final = 10
"""Tasks of one frame. Source: amazon-ecs-agent, ecs-agent/tcs/client, `tasksInMetricMessage`."""
MAX_CONTAINERS: Final = 1000
"""Containers of a task in one frame; a task definition has at most ten on Fargate."""
LONG_MAX: Final = 2**63 - 1
"""Largest number of a counter; what is above stands in its overflow."""

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=LONG_MAX)]


class StatsSet(Message):
    """Samples of a number in a bucket. Source: `CWStatsSet`."""

    min: _Amount
    max: _Amount
    sum: _Amount
    sample_count: _Count


class CounterSet(Message):
    """Samples of a counter of 64 bits in a bucket. Source: `ULongStatsSet`.

    A number that is larger than `LONG_MAX` is told as that, and what is beyond as the overflow.
    """

    min: _Count
    max: _Count
    sum: _Count
    sample_count: _Count
    overflow_min: _Count | None = None
    overflow_max: _Count | None = None
    overflow_sum: _Count | None = None


class NetworkStatsSet(Message):
    """What went through the interfaces of a task since it was started."""

    rx_bytes: CounterSet
    rx_packets: CounterSet
    rx_errors: CounterSet
    rx_dropped: CounterSet
    tx_bytes: CounterSet
    tx_packets: CounterSet
    tx_errors: CounterSet
    tx_dropped: CounterSet
    rx_bytes_per_second: StatsSet
    tx_bytes_per_second: StatsSet


class StorageStatsSet(Message):
    """Bytes that a container has read and written since its first start."""

    read_size_bytes: CounterSet
    write_size_bytes: CounterSet


class RestartStatsSet(Message):
    """How often a container was restarted, since its first start."""

    restart_count: _Count


class ContainerMetric(Message):
    """What a container has used in a bucket."""

    container_arn: str = ""
    container_name: str
    cpu_stats_set: StatsSet
    """Percent of all processors of the machine."""
    memory_stats_set: StatsSet
    """MiB, without the cache that can be dropped."""
    network_stats_set: NetworkStatsSet | None = None
    """Of the whole task; one of its containers has it, so that a sum over them is right."""
    storage_stats_set: StorageStatsSet | None = None
    restart_stats_set: RestartStatsSet | None = None
    """Of a container with a restart policy."""


class EphemeralStorageMetrics(Message):
    """How full the ephemeral volume of a task was in a bucket."""

    bytes_utilized: CounterSet


class TaskMetric(Message):
    """What a task has used in a bucket."""

    cluster_arn: str
    task_arn: TaskArnField
    task_definition_family: str
    task_definition_version: str
    container_metrics: Annotated[tuple[ContainerMetric, ...], Field(max_length=MAX_CONTAINERS)]
    ephemeral_storage_metrics: EphemeralStorageMetrics | None = None
    """None: nothing bounds what the task writes."""


class MetricsMetadata(Message):
    """Which frame of which agent."""

    cluster: str
    container_instance: str
    message_id: str
    fin: bool
    """Whether it is the last one of its bucket."""
    idle: bool = False
    """Whether the agent has no task."""


class PublishMetricsRequest(Frame):
    """What at most `MAX_TASKS` tasks have used. A control plane that doesn't know it ignores it."""

    metadata: MetricsMetadata
    timestamp: int
    """The end of the bucket, in milliseconds since 1970; a multiple of `BUCKET_S`."""
    task_metrics: Annotated[tuple[TaskMetric, ...], Field(max_length=MAX_TASKS)] = ()


class AckPublishMetric(Frame):
    """The control plane has kept a frame, or has decided not to."""

    message: str = ""
    """Id of the frame."""
