"""What agents tell of their tasks: taken by the websocket, kept, read over HTTP, forgotten."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from botocore.exceptions import ClientError
from prometheus_client.parser import text_string_to_metric_families

from fargate_agent.controlplane.history import retention
from fargate_agent.controlplane.telemetry import task_metrics
from fargate_agent.controlplane.telemetry.intake import find_bucket
from fargate_agent.wire.messages import PayloadMessage
from fargate_agent.wire.telemetry import (
    BUCKET_S,
    AckPublishMetric,
    ContainerMetric,
    CounterSet,
    EphemeralStorageMetrics,
    MetricsMetadata,
    NetworkStatsSet,
    PublishMetricsRequest,
    RestartStatsSet,
    StatsSet,
    StorageStatsSet,
    TaskMetric,
)
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, add_principal
from tests.fixtures.ecs import FARGATE, run
from tests.fixtures.machine import held_port
from tests.fixtures.postgres import change_database
from tests.fixtures.requests import sign


def stats(least: float, largest: float) -> StatsSet:
    return StatsSet(min=least, max=largest, sum=least + largest, sample_count=2)


def counter(value: int) -> CounterSet:
    return CounterSet(min=value, max=value, sum=2 * value, sample_count=2)


UTILIZED = {"min": 4096, "max": 4096, "sum": 8192, "sampleCount": 2}
COUNTERS = ("packets", "errors", "dropped")
NETWORK = NetworkStatsSet(
    rx_bytes=counter(1000),
    tx_bytes=counter(2000),
    **{f"{way}_{what}": counter(0) for way in ("rx", "tx") for what in COUNTERS},
    rx_bytes_per_second=stats(1, 3),
    tx_bytes_per_second=stats(2, 4),
)


def container(name: str = "app", cpu: float = 7.5) -> ContainerMetric:
    return ContainerMetric(
        container_name=name,
        cpu_stats_set=stats(2.5, cpu),
        memory_stats_set=stats(10, 12),
        network_stats_set=NETWORK,
        storage_stats_set=StorageStatsSet(
            read_size_bytes=counter(4096), write_size_bytes=counter(8192)
        ),
        restart_stats_set=RestartStatsSet(restart_count=1),
    )


def bucket(*tasks: str, at: int, cpu: float = 7.5) -> PublishMetricsRequest:
    return PublishMetricsRequest(
        metadata=MetricsMetadata(
            cluster="default", container_instance="i", message_id=f"m{at}", fin=True
        ),
        timestamp=at * 1000,
        task_metrics=tuple(
            TaskMetric(
                cluster_arn="",
                task_arn=task,
                task_definition_family="web",
                task_definition_version="1",
                container_metrics=(container(cpu=cpu), container("of another")),
                ephemeral_storage_metrics=EphemeralStorageMetrics(bytes_utilized=counter(4096)),
            )
            for task in tasks
        ),
    )


def this_bucket() -> int:
    return int(time.time() // BUCKET_S) * BUCKET_S


async def tell(agent: SimulatedAgent, frame: PublishMetricsRequest) -> None:
    await agent.send(frame)
    ack = await agent.receive(AckPublishMetric)
    assert ack.message == frame.metadata.message_id


async def ask(
    plane: ControlPlane, principal: str = "admin", **parameters: str
) -> tuple[int, dict[str, Any]]:
    url = f"{plane.url}/metrics/tasks"
    headers = sign("GET", url, plane.keys[principal], params=parameters)
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{url}?{urlencode(parameters)}", headers=headers) as response,
    ):
        return response.status, await response.json(content_type=None)


async def run_here(ecs: Any, agent: SimulatedAgent) -> str:
    arn = str((await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"])
    await agent.ack(await agent.receive(PayloadMessage))
    return arn


async def test_bucket_of_a_task_is_kept_once_and_read(
    control_plane: ControlPlane, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn, at = await run_here(registered, simulated_agent), this_bucket()
    await tell(simulated_agent, bucket(arn, at=at))
    await tell(simulated_agent, bucket(arn, at=at, cpu=99))

    status, answer = await ask(control_plane, task=arn)

    assert status == 200
    assert answer == {
        "periodSeconds": 20,
        "tasks": [
            {
                "taskArn": arn,
                "buckets": [
                    {
                        "at": at,
                        "containers": [
                            {
                                "name": "app",
                                "cpuPercent": {"min": 2.5, "max": 7.5, "sum": 10, "sampleCount": 2},
                                "memoryMiB": {"min": 10, "max": 12, "sum": 22, "sampleCount": 2},
                                "storage": {"readBytes": 4096, "writeBytes": 8192},
                                "restartCount": 1,
                            }
                        ],
                        "network": {
                            "rxBytes": 1000,
                            "txBytes": 2000,
                            "rxBytesPerSecond": {"min": 1, "max": 3, "sum": 4, "sampleCount": 2},
                            "txBytesPerSecond": {"min": 2, "max": 4, "sum": 6, "sampleCount": 2},
                        },
                        "ephemeralStorage": {"utilizedBytes": UTILIZED},
                    }
                ],
            }
        ],
    }


async def test_tasks_of_other_agents_and_other_times_are_not_kept(
    control_plane: ControlPlane, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn, at = await run_here(registered, simulated_agent), this_bucket()
    async with SimulatedAgent(control_plane) as other:
        await tell(other, bucket(arn, at=at))
    await tell(simulated_agent, bucket(arn, at=at - 400))
    await tell(simulated_agent, bucket(arn, at=at + 100))

    _, answer = await ask(control_plane, since="0")

    assert answer["tasks"] == []


async def test_answers_come_in_pages(
    control_plane: ControlPlane,
    registered: Any,
    simulated_agent: SimulatedAgent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_metrics, "PAGE_ROWS", 2)
    arns, at = [await run_here(registered, simulated_agent) for _ in range(2)], this_bucket()
    for age in (40, 20, 0):
        await tell(simulated_agent, bucket(*arns, at=at - age))

    pages: list[list[tuple[int, str]]] = []
    more: dict[str, str] | None = {}
    while more is not None:
        _, answer = await ask(control_plane, since="0", **more)
        pages.append([(b["at"], t["taskArn"]) for t in answer["tasks"] for b in t["buckets"]])
        more = {"nextToken": answer["nextToken"]} if "nextToken" in answer else None

    assert [{at for at, _ in page} for page in pages] == [{at - 40}, {at - 20}, {at}]
    assert all({arn for _, arn in page} == set(arns) for page in pages)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"since": "x"}, "since must be a time in seconds since 1970."),
        ({"nextToken": "x"}, "nextToken must be that of the page before."),
        ({"tasks": "x"}, "Unknown parameter: tasks."),
        ({"task": "x"}, "taskId length should be one of [32,36]"),
        ({"cluster": "nowhere"}, "Cluster not found."),
    ],
)
async def test_what_makes_no_sense_is_refused(
    control_plane: ControlPlane, parameters: dict[str, str], text: str
) -> None:
    status, answer = await ask(control_plane, **parameters)

    assert (status, answer["message"]) == (400, text)


async def test_reader_needs_permission(
    start_control_plane: StartControlPlane, state_dir: Any
) -> None:
    statement = {
        "Effect": "Allow",
        "Action": "fargate:GetTaskMetrics",
        "Resource": "*",
        "Condition": {
            "ArnEquals": {"ecs:cluster": "arn:aws:ecs:us-east-1:000000000000:cluster/default"}
        },
    }
    await asyncio.to_thread(add_principal, state_dir, [statement])
    plane = await asyncio.to_thread(start_control_plane)

    assert (await ask(plane, "ci"))[0] == 200
    status, answer = await ask(plane, "ci", cluster="other")
    assert status == 400
    assert "is not authorized to perform: fargate:GetTaskMetrics" in answer["message"]
    assert (await ask(plane, "agent"))[0] == 400


async def test_buckets_are_forgotten_after_a_day_and_with_their_task(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FORGET_EVERY_S", 0.05)
    plane = await asyncio.to_thread(start_control_plane)
    ecs, at = plane.client(), this_bucket()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        arns = [await run_here(ecs, agent) for _ in range(2)]
        for age in (20, 0):
            await tell(agent, bucket(*arns, at=at - age))
        day = 24 * 3600
        await change_database(
            plane.database, f"UPDATE task_metrics SET at = at - {day} WHERE at < {at}"
        )
        await until(plane, lambda rows: rows == {(arns[0], at), (arns[1], at)})

        await change_database(
            plane.database,
            "UPDATE tasks SET last_status = 'STOPPED', stopped_at = 1.0"
            f" WHERE id = '{arns[0][-32:]}'",
        )
        await until(plane, lambda rows: rows == {(arns[1], at)})


async def test_bucket_of_long_ago_is_forgotten_and_holds_nothing_up(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a machine leaves it whose clock began at 1970."""
    monkeypatch.setattr(retention, "FORGET_EVERY_S", 0.05)
    plane = await asyncio.to_thread(start_control_plane)
    ecs, at = plane.client(), this_bucket()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        arns = [await run_here(ecs, agent) for _ in range(2)]
        await tell(agent, bucket(*arns, at=at))
        await change_database(
            plane.database, f"UPDATE task_metrics SET at = 0 WHERE task_id = '{arns[0][-32:]}'"
        )

        await until(plane, lambda rows: rows == {(arns[1], at)})
        await change_database(plane.database, f"UPDATE task_metrics SET at = at - {24 * 3600}")
        await until(plane, lambda rows: not rows)


async def until(plane: ControlPlane, holds: Callable[[set[tuple[str, int]]], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            _, answer = await ask(plane, since="0")
            rows = {(t["taskArn"], b["at"]) for t in answer["tasks"] for b in t["buckets"]}
            if holds(rows):
                return
            await asyncio.sleep(0.02)


async def read_metrics(port: int) -> dict[tuple[str, ...], float]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        text = await response.text()
    return {
        (sample.name.removeprefix("fargate_control_plane_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as found:
        yield found


@pytest.fixture
def measured(start_control_plane: StartControlPlane, port: int) -> ControlPlane:
    return start_control_plane(metrics_listen=f"http://127.0.0.1:{port}")


async def test_control_plane_tells_prometheus_what_it_does(
    measured: ControlPlane, port: int
) -> None:
    ecs = measured.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(measured) as agent:
        arn = await run_here(ecs, agent)
        async with asyncio.timeout(10):
            while not (found := await read_metrics(port))["task_delivery_seconds_count",]:
                await asyncio.sleep(0.05)
        await asyncio.to_thread(ecs.stop_task, task=arn)
        await agent.take()
    with pytest.raises(ClientError):
        await asyncio.to_thread(ecs.describe_clusters, clusters=["x"] * 101)
    status, _ = await ask(measured, surprise="x")
    assert status == 400
    async with asyncio.timeout(10):
        while ("requests_total", "Poll", "101") not in (later := await read_metrics(port)):
            await asyncio.sleep(0.05)  # the agent's connection is ending

    assert found["requests_total", "RunTask", "200"] == 1
    assert found["request_seconds_count", "RunTask"] == 1
    assert found["tasks", "PROVISIONING"] == 1
    assert found["agents_connected",] == 1
    assert found["task_delivery_seconds_sum",] < 5
    assert found["database_seconds_count", "write"] > 3
    assert found["writers_waiting",] == 0
    assert later["requests_total", "DescribeClusters", "400"] == 1
    assert later["requests_total", "GetTaskMetrics", "400"] == 1
    assert later["requests_total", "Poll", "101"] == 1
    assert later["task_delivery_seconds_count",] == 1  # its end is something else


async def test_requests_that_mean_nothing_have_one_label(measured: ControlPlane, port: int) -> None:
    async with aiohttp.ClientSession() as http:
        for number in range(3):
            headers = {"X-Amz-Target": f"Attack.{number}"}
            async with http.post(f"{measured.url}/{number}", headers=headers) as response:
                assert response.status == 404

    found = await read_metrics(port)

    requests = {labels: n for labels, n in found.items() if labels[0] == "requests_total"}
    assert requests == {("requests_total", "unknown", "404"): 3}


def test_bucket_of_a_moment() -> None:
    assert find_bucket(1019.9, 1020) == 1000
    assert find_bucket(1000, 1301) is None
    assert find_bucket(1061, 1000) is None
    assert find_bucket(1e30, 1000) is None
