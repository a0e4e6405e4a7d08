import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fargate_agent.drivers import ContainerUsage
from fargate_agent.network.netlink import LinkStats
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.tmds.sampling import Pair, Sample
from fargate_agent.tmds.stats import render_stats
from tests.messages import container_json, site, task_message

MIB = 1024 * 1024

USAGE = ContainerUsage(
    read_at=datetime(2026, 1, 5, 10, 0, 10, tzinfo=UTC),
    cpu_total_ns=3_000,
    cpu_user_ns=2_000,
    cpu_kernel_ns=1_000,
    cpu_per_core_ns=(1_500, 1_500),
    throttle_periods=5,
    throttled_periods=1,
    throttled_ns=77,
    memory_bytes=8 * MIB,
    memory_max_bytes=9 * MIB,
    memory_limit_bytes=256 * MIB,
    memory_failures=4,
    memory_stats={"cache": 12},
    pids=3,
    pids_limit=0,
    block_io=((8, 0, "read", 4096),),
    block_operations=((8, 0, "read", 1),),
)
LINK = LinkStats(
    rx_bytes=100,
    rx_packets=1,
    rx_errors=0,
    rx_dropped=0,
    tx_bytes=50,
    tx_packets=1,
    tx_errors=0,
    tx_dropped=0,
)
SAMPLE = Sample(usage=USAGE, system_cpu_ns=9_000, links={"eth1": LINK})


def plan(**changes: object) -> TaskPlan:
    return plan_task(task_message(container_json("web"), **changes), site(Path("/nowhere")))


EARLIER = Sample(
    usage=replace(USAGE, read_at=USAGE.read_at.replace(second=9), cpu_total_ns=2_500),
    system_cpu_ns=8_000,
    links={"eth1": LINK},
)


def render(sample: Sample, earlier: Sample = EARLIER, task: TaskPlan | None = None) -> str:
    task = task or plan()
    return render_stats(task, task.containers[0], Pair(earlier, sample)).to_json().decode()


def test_stats_have_dockers_members_in_dockers_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    task = plan()

    def cpu(total_ns: int, system_ns: int) -> dict[str, object]:
        return {
            "cpu_usage": {
                "total_usage": total_ns,
                "percpu_usage": [1_500, 1_500],
                "usage_in_kernelmode": 1_000,
                "usage_in_usermode": 2_000,
            },
            "system_cpu_usage": system_ns,
            "online_cpus": 2,
            "throttling_data": {"periods": 5, "throttled_periods": 1, "throttled_time": 77},
        }

    text = render(SAMPLE)

    assert text == json.dumps(
        {
            "read": "2026-01-05T10:00:10Z",
            "preread": "2026-01-05T10:00:09Z",
            "pids_stats": {"current": 3},
            "blkio_stats": {
                "io_service_bytes_recursive": [
                    {"major": 8, "minor": 0, "op": "read", "value": 4096}
                ],
                "io_serviced_recursive": [{"major": 8, "minor": 0, "op": "read", "value": 1}],
                "io_queue_recursive": [],
                "io_service_time_recursive": [],
                "io_wait_time_recursive": [],
                "io_merged_recursive": [],
                "io_time_recursive": [],
                "sectors_recursive": [],
            },
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": cpu(3_000, 9_000),
            "precpu_stats": cpu(2_500, 8_000),
            "memory_stats": {
                "usage": 8 * MIB,
                "max_usage": 9 * MIB,
                "stats": {"cache": 12},
                "failcnt": 4,
                "limit": 256 * MIB,
            },
            "name": "web",
            "id": task.containers[0].id,
            "networks": {
                "eth1": {
                    "rx_bytes": 100,
                    "rx_packets": 1,
                    "rx_errors": 0,
                    "rx_dropped": 0,
                    "tx_bytes": 50,
                    "tx_packets": 1,
                    "tx_errors": 0,
                    "tx_dropped": 0,
                }
            },
            "network_rate_stats": {"rx_bytes_per_sec": 0.0, "tx_bytes_per_sec": 0.0},
        },
        separators=(",", ":"),
    )


def test_rates_are_those_between_the_samples() -> None:
    later = Sample(
        usage=replace(USAGE, read_at=USAGE.read_at.replace(second=12), cpu_total_ns=4_000),
        system_cpu_ns=10_000,
        links={"eth1": replace(LINK, rx_bytes=300), "eth2": LINK},
    )

    stats = json.loads(render(later, SAMPLE))

    assert stats["preread"] == "2026-01-05T10:00:10Z"
    assert stats["precpu_stats"]["cpu_usage"]["total_usage"] == 3_000
    assert stats["precpu_stats"]["system_cpu_usage"] == 9_000
    assert stats["network_rate_stats"] == {"rx_bytes_per_sec": 150.0, "tx_bytes_per_sec": 25.0}


@pytest.mark.parametrize(
    ("container_mib", "task_mib", "shown_mib"),
    [
        pytest.param(256, 512, 256, id="container-below-task"),
        pytest.param(2**40, 512, 512, id="container-without-limit"),
        pytest.param(0, None, 0, id="no-limit-at-all"),
    ],
)
def test_memory_limit_is_the_one_that_is_met_first(
    container_mib: int, task_mib: int | None, shown_mib: int
) -> None:
    sample = replace(SAMPLE, usage=replace(USAGE, memory_limit_bytes=container_mib * MIB))

    stats = json.loads(render(sample, task=plan(memory=task_mib)))

    assert stats["memory_stats"]["limit"] == shown_mib * MIB


def test_absent_counters_are_empty_or_missing() -> None:
    usage = replace(USAGE, block_io=(), cpu_per_core_ns=(), pids_limit=100)

    stats = json.loads(render(replace(SAMPLE, usage=usage, links={})))

    assert stats["blkio_stats"]["io_service_bytes_recursive"] == []
    assert "percpu_usage" not in stats["cpu_stats"]["cpu_usage"]
    assert stats["pids_stats"] == {"current": 3, "limit": 100}
    assert "networks" not in stats


def test_versions_2_and_3_have_no_rates() -> None:
    task = plan()

    stats = render_stats(task, task.containers[0], Pair(EARLIER, SAMPLE), with_rates=False)

    assert "network_rate_stats" not in json.loads(stats.to_json())
