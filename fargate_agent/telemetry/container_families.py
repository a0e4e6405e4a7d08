"""What containers use, for Prometheus, by the names that cAdvisor's users know. Pure.

Source: cAdvisor, docs/storage/prometheus.md; the labels of ECS: amazon-ecs-agent, agent/engine,
`labelPrefix`, as cAdvisor writes the labels of Docker.
"""

from collections.abc import Iterable
from typing import Final

from fargate_agent.measures.exposition import Family
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.telemetry.meters import ContainerMeter
from fargate_agent.telemetry.sampler import TaskMeter

_NS_PER_S: Final = 1_000_000_000
_TASK_LABELS: Final = tuple(
    f"container_label_com_amazonaws_ecs_{name}"
    for name in ("cluster", "task_arn", "task_definition_family", "task_definition_version")
)
LABELS: Final = (
    "id",
    "name",
    "image",
    "container_label_com_amazonaws_ecs_container_name",
    *_TASK_LABELS,
)
"""Of what a container uses. `id` is its control group, `name` its id in containerd."""
NETWORK_LABELS: Final = ("id", "interface", *_TASK_LABELS)
"""Of what a task sends and receives."""
STORAGE_LABELS: Final = ("id", *_TASK_LABELS)
"""Of the ephemeral volume of a task."""

_NETWORK: Final = {
    "container_network_receive_bytes": ("rx_bytes", "Bytes that a task has received."),
    "container_network_receive_packets": ("rx_packets", "Packets that a task has received."),
    "container_network_receive_errors": ("rx_errors", "Packets with errors, received."),
    "container_network_receive_packets_dropped": ("rx_dropped", "Packets that were dropped."),
    "container_network_transmit_bytes": ("tx_bytes", "Bytes that a task has sent."),
    "container_network_transmit_packets": ("tx_packets", "Packets that a task has sent."),
    "container_network_transmit_errors": ("tx_errors", "Packets with errors, sent."),
    "container_network_transmit_packets_dropped": ("tx_dropped", "Packets that were dropped."),
}


def container_families(
    tasks: Iterable[TaskMeter], now_s: float, clock_s: float
) -> Iterable[Family]:
    """Return what the containers of tasks use.

    `now_s` are seconds since 1970, `clock_s` is the same moment by the clock of the readings.
    """
    cpu = _counter("container_cpu_usage_seconds", "Time of processors.", "cpu")
    families = {
        "usage": _gauge("container_memory_usage_bytes", "Memory, with all cache."),
        "set": _gauge("container_memory_working_set_bytes", "Memory without what can be dropped."),
        "limit": _gauge("container_spec_memory_limit_bytes", "The limit on memory; 0 is none."),
        "read": _counter("container_fs_reads_bytes", "Bytes read from disks."),
        "written": _counter("container_fs_writes_bytes", "Bytes written to disks."),
        "seen": _gauge("container_last_seen", "When it was looked at, in seconds since 1970."),
        "start": _gauge("container_start_time_seconds", "When it started, since 1970."),
        "restarts": _counter("fargate_container_restarts", "How often it was restarted."),
    }
    network = {
        name: Family(name=name, kind="counter", help=text, labels=NETWORK_LABELS)
        for name, (_, text) in _NETWORK.items()
    }
    reserved = _storage_gauge("reserved", "Size of the ephemeral volume of a task.")
    utilized = _storage_gauge("utilized", "What of the ephemeral volume of a task is in use.")
    for task in tasks:
        if task.storage.use is not None:
            labels = (task.run.plan.cgroup, *_label_task(task.run.plan))
            reserved.values[labels] = task.run.plan.ephemeral_storage_gib << 30
            utilized.values[labels] = task.storage.use.used_bytes
        for plan in task.run.plan.containers:
            meter = task.containers.get(plan.name)
            if meter is None or meter.reading is None:
                continue
            labels = _label(task.run.plan, plan)
            cpu.values[*labels, "total"] = meter.cpu_ns.total / _NS_PER_S
            seen_s = now_s - (clock_s - meter.read_at_s)
            for name, value in _read(task, plan, meter, seen_s).items():
                families[name].values[labels] = value
        for interface, link in task.network.links.items():
            where = (task.run.plan.cgroup, interface, *_label_task(task.run.plan))
            for name, (counted, _) in _NETWORK.items():
                network[name].values[where] = link.counters[counted].total
    return [cpu, *families.values(), *network.values(), reserved, utilized]


def _read(
    task: TaskMeter, plan: ContainerPlan, meter: ContainerMeter, seen_s: float
) -> dict[str, float]:
    facts = task.run.facts.containers[plan.name]
    started_at = facts.runs[-1].started_at if facts.runs else None
    return {
        "usage": 0 if meter.reading is None else meter.reading.memory_bytes,
        "set": meter.working_set_bytes,
        "limit": (plan.memory_mib or task.run.plan.memory_mib or 0) << 20,
        "read": meter.read_bytes.total,
        "written": meter.written_bytes.total,
        "seen": seen_s,
        "start": 0 if started_at is None else started_at.timestamp(),
        "restarts": facts.restart_count,
    }


def _label(task: TaskPlan, plan: ContainerPlan) -> tuple[str, ...]:
    return (plan.cgroup, plan.id, plan.image, plan.name, *_label_task(task))


def _label_task(task: TaskPlan) -> tuple[str, ...]:
    return (task.cluster, task.arn, task.family, task.revision)


def _gauge(name: str, text: str) -> Family:
    return Family(name=name, kind="gauge", help=text, labels=LABELS)


def _storage_gauge(what: str, text: str) -> Family:
    name = f"fargate_task_ephemeral_storage_{what}_bytes"
    return Family(name=name, kind="gauge", help=text, labels=STORAGE_LABELS)


def _counter(name: str, text: str, *more: str) -> Family:
    return Family(name=name, kind="counter", help=text, labels=(*LABELS, *more))
