"""What a real container uses, as it is told."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.collector import Collector
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import held_port
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.requests import sign
from tests.fixtures.stack import Stack, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]


async def read_buckets(stack: Stack, arn: str) -> list[dict[str, Any]]:
    url, parameters = f"{stack.plane.url}/metrics/tasks", {"task": arn, "since": "0"}
    headers = sign("GET", url, stack.plane.keys["admin"], params=parameters)
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{url}?{urlencode(parameters)}", headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        tasks = (await response.json())["tasks"]
    return [bucket for task in tasks for bucket in task["buckets"]]


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as found:
        yield found


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector().serving() as made:
        yield made


@pytest.fixture
async def stack(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    port: int,
    collector: Collector,
) -> AsyncIterator[Stack]:
    """The programs, of which the agent tells all that it can."""
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        FARGATE_AGENT_METRICS_LISTEN=f"http://127.0.0.1:{port}",
        FARGATE_AGENT_OTLP_ENDPOINT=collector.url,
    ) as made:
        made.ecs.meta.events.register("before-sign.ecs.RunTask", say_trace)
        yield made


def say_trace(request: Any, **_: object) -> None:
    request.headers["traceparent"] = f"00-{TRACE_ID}-{SPAN_ID}-01"


TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
Metrics = dict[str, list[tuple[dict[str, str], float]]]
"""By the name of a sample: labels and value."""


async def read_metrics(url: str, socket_path: Path | None = None) -> Metrics:
    connector = None if socket_path is None else aiohttp.UnixConnector(str(socket_path))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(f"{url}/metrics") as response,
    ):
        assert response.status == 200
        text = await response.text()
    found: Metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def wait_for_metrics(url: str, names: set[str]) -> Metrics:
    """Return metrics that have these containers: what was read just now isn't read again."""
    label = "container_label_com_amazonaws_ecs_container_name"
    async with asyncio.timeout(30):
        while True:
            metrics = await read_metrics(url)
            found = metrics.get("container_cpu_usage_seconds_total", [])
            if {labels[label] for labels, _ in found} == names:
                return metrics
            await asyncio.sleep(0.1)


def of_container(metrics: Metrics, metric: str, name: str) -> float:
    label = "container_label_com_amazonaws_ecs_container_name"
    (value,) = (value for labels, value in metrics[metric] if labels[label] == name)
    return value


async def test_what_a_busy_container_uses_is_told(
    stack: Stack, registry: FakeRegistry, port: int, collector: Collector
) -> None:
    arn = stack.run(
        tool("busy", "while :; do :; done"),
        tool("idle", "wget -q -O - http://10.213.64.1:5000/v2/ >/dev/null 2>&1; sleep 1000"),
    )
    await stack.wait_for(arn, "RUNNING")
    metrics = await wait_for_metrics(f"http://127.0.0.1:{port}", {"busy", "idle"})
    check_metrics(stack, arn, metrics)
    assert metrics.keys() == (await read_metrics("http://agent", stack.socket)).keys()
    await check_trace(collector, arn)
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(50):
        while not found:
            found = await read_buckets(stack, arn)
            await asyncio.sleep(0.5)

    containers = {one["name"]: one for one in found[0]["containers"]}

    assert found[0]["at"] % 20 == 0
    assert set(containers) == {"busy", "idle"}
    busy, idle = containers["busy"], containers["idle"]
    assert 0.5 < busy["cpuPercent"]["max"] <= 15  # a quarter of a processor, of two at least
    assert idle["cpuPercent"]["max"] < busy["cpuPercent"]["max"] / 4
    assert 0 < busy["memoryMiB"]["max"] < 64
    assert 1 <= busy["cpuPercent"]["sampleCount"] <= 5
    assert found[0]["network"]["rxBytes"] > 0
    assert {"readBytes", "writeBytes"} == set(busy["storage"])
    assert 0 < found[0]["ephemeralStorage"]["utilizedBytes"]["max"] < 1 << 30

    stack.agent.end(signal.SIGKILL)
    stack.agent.start()
    last = (await read_buckets(stack, arn))[-1]
    async with asyncio.timeout(60):
        while (latest := (await read_buckets(stack, arn))[-1])["at"] <= last["at"]:
            await asyncio.sleep(0.5)
    assert {one["name"] for one in latest["containers"]} == {"busy", "idle"}


def check_metrics(stack: Stack, arn: str, metrics: Metrics) -> None:
    task_id = arn.rpartition("/")[2]
    ((labels, _), *_) = metrics["container_cpu_usage_seconds_total"]
    assert labels["container_label_com_amazonaws_ecs_task_arn"] == arn
    assert labels["container_label_com_amazonaws_ecs_cluster"] == "default"
    assert labels["id"] == f"/ecs/{task_id}/{labels['name']}"
    assert labels["image"].endswith("/tool:1")
    assert of_container(metrics, "container_cpu_usage_seconds_total", "busy") > 0
    working_set = of_container(metrics, "container_memory_working_set_bytes", "busy")
    assert 0 < working_set <= of_container(metrics, "container_memory_usage_bytes", "busy")
    assert of_container(metrics, "container_spec_memory_limit_bytes", "busy") == 512 << 20
    assert abs(of_container(metrics, "container_last_seen", "idle") - time.time()) < 10
    ((where, received), *_) = metrics["container_network_receive_bytes_total"]
    assert (where["id"], where["interface"]) == (f"/ecs/{task_id}", "eth1")
    assert received > 0
    for what, amount in (("reserved", 20 << 30), ("utilized", 0)):
        ((where, value),) = metrics[f"fargate_task_ephemeral_storage_{what}_bytes"]
        assert where["id"] == f"/ecs/{task_id}"
        assert amount <= value <= 20 << 30
    phases = {each["phase"]: n for each, n in metrics["fargate_agent_task_start_seconds_count"]}
    assert phases == {
        "total": 1, "netns": 1, "prepare": 1, "eni": 1, "names": 1, "metadata": 1,
        "volumes": 0, "pull": 1, "create": 2, "start": 2,
    }  # fmt: skip
    assert metrics["fargate_agent_tasks"] == [({"status": "RUNNING"}, 1)]
    assert metrics["fargate_agent_acs_connected"] == [({}, 1)]
    assert metrics["fargate_agent_pulled_bytes_total"][0][1] > 100_000


async def check_trace(collector: Collector, arn: str) -> None:
    spans = await collector.wait_for("start task")
    (root,) = (span for span in spans if span.name == "start task")
    parts = [span for span in spans if span is not root]
    assert root.attributes["aws.ecs.task.arn"] == arn
    assert (root.trace_id, root.parent_id) == (TRACE_ID, SPAN_ID)
    assert sorted(span.name for span in parts) == [
        "create", "create", "eni", "metadata", "names", "netns", "prepare", "pull", "start",
        "start",
    ]  # fmt: skip
    assert {(span.trace_id, span.parent_id) for span in parts} == {(TRACE_ID, root.span_id)}
    assert all(root.began_ns - 10**6 <= span.began_ns <= span.ended_ns for span in parts)
    named = {span.attributes.get("aws.ecs.container.name") for span in parts}
    assert {"busy", "idle"} <= named
