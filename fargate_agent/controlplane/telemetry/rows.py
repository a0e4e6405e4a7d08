"""One bucket of a task as it is kept: short, for there are 4,320 a day of each task.

    {"c": {"web": [cpu, memory, read, written, restarts]}, "n": [received, sent, rate, rate],
     "e": utilized}

`cpu`, `memory`, `utilized` and the rates are `[min, max, sum, count]`; the others are counters at
the end of the bucket. `n` is missing where nothing was said of the network, `e` where nothing was
said of the ephemeral volume; `restarts` is null without a restart policy. Pure.
"""

from collections.abc import Collection
from typing import Any, Final

from fargate_agent.wire.telemetry import (
    ContainerMetric,
    CounterSet,
    NetworkStatsSet,
    StatsSet,
    TaskMetric,
)

_DIGITS: Final = 4
"""Behind the point: a ten-thousandth of a percent, 100 bytes."""
MAX_CONTAINERS: Final = 32
"""Of a task, that are kept of a bucket."""


def make_row(metric: TaskMetric, names: Collection[str]) -> dict[str, Any]:
    """Return what is kept of a bucket; of containers that the task doesn't have, nothing."""
    known = [one for one in metric.container_metrics if one.container_name in names]
    networks = [one.network_stats_set for one in known if one.network_stats_set is not None]
    row: dict[str, Any] = {
        "c": {one.container_name: _pack_container(one) for one in known[:MAX_CONTAINERS]}
    }
    if networks:
        row["n"] = _pack_network(networks[0])
    if metric.ephemeral_storage_metrics is not None:
        row["e"] = _pack_set(metric.ephemeral_storage_metrics.bytes_utilized)
    return row


def render_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a bucket as clients read it."""
    answer: dict[str, Any] = {
        "containers": [_render_container(name, kept) for name, kept in row["c"].items()]
    }
    if "n" in row:
        received, sent, receiving, sending = row["n"]
        answer["network"] = {
            "rxBytes": received,
            "txBytes": sent,
            "rxBytesPerSecond": _render_set(receiving),
            "txBytesPerSecond": _render_set(sending),
        }
    if "e" in row:
        answer["ephemeralStorage"] = {"utilizedBytes": _render_set(row["e"])}
    return answer


def _render_container(name: str, kept: list[Any]) -> dict[str, Any]:
    cpu, memory, read, written, restarts = kept
    answer = {
        "name": name,
        "cpuPercent": _render_set(cpu),
        "memoryMiB": _render_set(memory),
        "storage": {"readBytes": read, "writeBytes": written},
    }
    return answer if restarts is None else {**answer, "restartCount": restarts}


def _pack_container(metric: ContainerMetric) -> list[Any]:
    storage, restarts = metric.storage_stats_set, metric.restart_stats_set
    return [
        _pack_set(metric.cpu_stats_set),
        _pack_set(metric.memory_stats_set),
        0 if storage is None else _last(storage.read_size_bytes),
        0 if storage is None else _last(storage.write_size_bytes),
        None if restarts is None else restarts.restart_count,
    ]


def _pack_network(network: NetworkStatsSet) -> list[Any]:
    return [
        _last(network.rx_bytes),
        _last(network.tx_bytes),
        _pack_set(network.rx_bytes_per_second),
        _pack_set(network.tx_bytes_per_second),
    ]


def _pack_set(found: StatsSet | CounterSet) -> list[float]:
    return [
        round(found.min, _DIGITS),
        round(found.max, _DIGITS),
        round(found.sum, _DIGITS),
        found.sample_count,
    ]


def _render_set(kept: list[float]) -> dict[str, float]:
    least, largest, total, count = kept
    return {"min": least, "max": largest, "sum": total, "sampleCount": count}


def _last(counter: CounterSet) -> int:
    """A counter only grows, so the largest sample is the last one."""
    return counter.max + (counter.overflow_max or 0)
