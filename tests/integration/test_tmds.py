"""The task metadata endpoint, over real sockets in real network namespaces."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.processes import RuncOptions
from fargate_agent.drivers import ContainerUsage
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.usage import render_usage
from fargate_agent.tmds.sampling import Pair
from fargate_agent.tmds.stats import render_stats
from fargate_agent.wire.stats import ContainerStats
from tests.fixtures.busybox import SNAPSHOTTER, prepare_busybox
from tests.fixtures.machine import wait_for
from tests.fixtures.network import MakeNetns, run_ip
from tests.fixtures.tmds import Endpoint, ask, connect, count_listeners, fetch, receive
from tests.unit.test_tmds_stats import USAGE

pytestmark = pytest.mark.root

DEADLINE_S = 10.0


def add_link(netns: Path) -> str:
    """Put another eth1 into the namespace; return the name of the other end, which goes with it."""
    run_ip("link", "del", "eth1", netns=netns)
    host_end = f"v{uuid.uuid4().hex[:8]}"
    run_ip("link", "add", host_end, "type", "veth", "peer", "name", "eth1", "netns", str(netns))
    return host_end


async def test_task_reads_about_itself_and_each_of_its_containers(
    endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web", "log")

    answers = [await fetch(netns, f"/v4/{one.metadata_id}") for one in task.containers]
    whole = await fetch(netns, f"/v4/{task.containers[0].metadata_id}/task")

    assert [answer.status for answer in (*answers, whole)] == [200, 200, 200]
    assert {answer.kind for answer in (*answers, whole)} == {"application/json"}
    assert [answer.json["Name"] for answer in answers] == ["web", "log"]
    assert whole.json["TaskARN"] == task.arn
    assert whole.json["Containers"] == [answer.json for answer in answers]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param(
            "",
            "V4 container metadata handler: unable to get container ID from request: "
            "unable to get docker ID from v3 endpoint ID: ",
            id="container",
        ),
        pytest.param(
            "/task",
            "V4 task metadata handler: unable to get task arn from request: "
            "unable to get task Arn from v3 endpoint ID: ",
            id="task",
        ),
        pytest.param(
            "/stats",
            "V4 container stats handler: unable to get container ID from request: "
            "unable to get docker ID from v3 endpoint ID: ",
            id="container-stats",
        ),
        pytest.param(
            "/task/stats",
            "V4 task stats handler: unable to get task arn from request: "
            "unable to get task Arn from v3 endpoint ID: ",
            id="task-stats",
        ),
    ],
)
async def test_id_of_another_task_is_as_unknown_as_any(
    endpoint: Endpoint, make_netns: MakeNetns, path: str, text: str
) -> None:
    netns, other_netns = await make_netns(), await make_netns()
    await endpoint.add(netns, "web")
    other = await endpoint.add(other_netns, "web")

    for metadata_id in (other.containers[0].metadata_id, "nobody"):
        answer = await fetch(netns, f"/v4/{metadata_id}{path}")

        assert (answer.status, answer.kind) == (404, "application/json")
        assert answer.json == text + metadata_id
    assert (await fetch(other_netns, f"/v4/{other.containers[0].metadata_id}")).status == 200


async def test_nothing_listens_on_the_host(
    endpoint: Endpoint, metadata_netns: MetadataNetns, netns: Path
) -> None:
    await endpoint.add(netns, "web")
    host = Path("/proc/thread-self/ns/net")

    assert count_listeners(metadata_netns.path) == 1
    assert count_listeners(host) == 0


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_any_method_will_do(endpoint: Endpoint, netns: Path, method: str) -> None:
    task = await endpoint.add(netns, "web")

    answer = await fetch(netns, f"/v4/{task.containers[0].metadata_id}", method)

    assert answer.status == 200


async def test_path_is_cleaned_and_unknown_ones_are_not_found(
    endpoint: Endpoint, netns: Path
) -> None:
    await endpoint.add(netns, "web")

    cleaned = await fetch(netns, "//v4//x/./task")
    unknown = await fetch(netns, "/v5/x")
    slash = await fetch(netns, "/v4/x/")

    assert (cleaned.status, cleaned.headers["Location"]) == (301, "/v4/x/task")
    assert (unknown.status, unknown.body) == (404, "404 page not found\n")
    assert (slash.status, slash.body) == (404, "404 page not found\n")


async def test_container_without_stats_is_an_error_alone_and_empty_among_others(
    endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")
    (web,) = task.containers

    alone = await fetch(netns, f"/v4/{web.metadata_id}/stats")
    among = await fetch(netns, f"/v4/{web.metadata_id}/task/stats")

    assert (alone.status, alone.json) == (500, f"Unable to get container stats for: {web.id}")
    assert (among.status, among.json) == (200, {web.id: {}})


async def test_runtime_that_does_not_answer_is_told(endpoint: Endpoint, netns: Path) -> None:
    task = await endpoint.add(netns, "web")
    endpoint.broken = True

    answer = await fetch(netns, f"/v4/{task.containers[0].metadata_id}/task/stats")

    assert (answer.status, answer.json) == (500, f"Unable to get task stats for: {task.arn}")


async def test_same_samples_are_rendered_once_and_new_ones_are_shown(
    endpoint: Endpoint, netns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Pair] = []

    def render(
        task: TaskPlan, container: ContainerPlan, pair: Pair, *, with_rates: bool
    ) -> ContainerStats:
        rendered.append(pair)
        return render_stats(task, container, pair, with_rates=with_rates)

    monkeypatch.setattr("fargate_agent.tmds.handlers.render_stats", render)
    monkeypatch.setattr("fargate_agent.tmds.sampling.PERIOD_S", 0.5)
    task = await endpoint.add(netns, "web")
    (web,) = task.containers

    async def measure() -> None:
        endpoint.usage[web.id] = replace(USAGE, read_at=datetime.now(UTC))

    endpoint.measure = measure
    path, shown = f"/v4/{web.metadata_id}/stats", list[str]()
    async with asyncio.timeout(DEADLINE_S):
        while len(set(shown)) < 3:
            shown.append((await fetch(netns, path)).json["read"])
            await asyncio.sleep(0.04)  # the endpoint limits how often it is asked

    assert len(rendered) == len(set(shown)) < len(shown)


async def test_stats_show_what_a_real_container_uses(
    endpoint: Endpoint, netns: Path, containerd: Containerd
) -> None:
    add_link(netns)
    task = await endpoint.add(netns, "web", "log")
    web, log = task.containers
    await prepare_busybox(containerd, web.id, ["sleep", "60"], memory_bytes=64 * 1024 * 1024)
    mounts = await containerd.snapshots(SNAPSHOTTER).mounts(web.id)
    await containerd.processes.create(
        web.id,
        mounts,
        log_uri=None,
        terminal=False,
        options=RuncOptions(),
        deadline_s=DEADLINE_S,
    )
    await containerd.processes.start(web.id)

    async def measure() -> ContainerUsage:
        metrics = await containerd.processes.metrics([web.id])
        endpoint.usage[web.id] = render_usage(metrics[web.id], datetime.now(UTC))
        return endpoint.usage[web.id]

    async with asyncio.timeout(DEADLINE_S):
        while (await measure()).pids > 1:  # threads of runC, which is becoming the program
            await asyncio.sleep(0.01)
    endpoint.measure = measure
    async with asyncio.TaskGroup() as readers:  # all of the same two samples
        asked = [
            readers.create_task(fetch(netns, path))
            for path in (
                f"/v4/{web.metadata_id}/stats",
                f"/v4/{web.metadata_id}/task/stats",
                "/v2/stats",
            )
        ]
    alone, whole, older = [one.result() for one in asked]

    stats = alone.json
    assert whole.json == {web.id: stats, log.id: {}}
    assert older.json.keys() == {web.id, log.id}
    assert older.json[log.id] is None
    assert older.json[web.id] == {
        name: value for name, value in stats.items() if name != "network_rate_stats"
    }
    assert stats["id"] == web.id
    assert stats["pids_stats"]["current"] == 1
    assert stats["memory_stats"]["limit"] == 64 * 1024 * 1024
    assert 0 < stats["memory_stats"]["usage"] < 64 * 1024 * 1024
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert stats["networks"].keys() == {"eth1"}
    assert stats["precpu_stats"]["system_cpu_usage"] < stats["cpu_stats"]["system_cpu_usage"]


async def test_ensure_may_be_repeated_and_release_too(
    endpoint: Endpoint, metadata_netns: MetadataNetns, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")

    await endpoint.metadata.ensure(task)
    assert (await fetch(netns, f"/v4/{task.containers[0].metadata_id}")).status == 200
    await endpoint.metadata.release(task)
    await endpoint.metadata.release(task)

    assert count_listeners(metadata_netns.path) == 0
    await endpoint.metadata.ensure(task)
    assert (await fetch(netns, f"/v4/{task.containers[0].metadata_id}")).status == 200


async def test_answer_that_was_under_way_leaves_nothing_behind(
    endpoint: Endpoint, netns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, told = asyncio.Event(), asyncio.Event()

    async def call(*_: object) -> dict[str, object]:
        asked.set()
        await told.wait()
        return {}

    monkeypatch.setattr(endpoint.desk, "call", call)
    task = await endpoint.add(netns, "web")
    with connect(netns) as connection:
        path = f"/v4/{task.containers[0].metadata_id}/taskWithTags"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(DEADLINE_S):
            await asked.wait()

        told.set()
        await endpoint.metadata.release(task)
        for _ in range(20):  # for what should not come
            await asyncio.sleep(0)

        assert not endpoint.storage.was_measured(task)


async def test_namespace_is_gone_after_release_though_connections_were_open(
    endpoint: Endpoint, netns: Path, netns_driver: KernelNetns
) -> None:
    task = await endpoint.add(netns, "web")
    host_end = add_link(netns)
    with connect(netns) as connection:
        connection.sendall(
            f"GET /v4/{task.containers[0].metadata_id} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        assert (await receive(connection)).startswith(b"HTTP/1.1 200 OK")

        await endpoint.metadata.release(task)

        assert await receive(connection) == b""
    await netns_driver.release(netns)
    names = Path("/sys/class/net")
    await asyncio.to_thread(
        wait_for, lambda: not (names / host_end).exists(), "the namespace to go", DEADLINE_S
    )


async def test_connection_that_asks_nothing_is_closed(
    endpoint: Endpoint, netns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fargate_agent.tmds.server.TIMEOUT_S", 1)
    await endpoint.add(netns, "web")

    with connect(netns) as silent, connect(netns) as slow:
        slow.sendall(b"GET /v4/x HTTP/1.1\r\nX-Never:")

        assert await receive(silent) == b""
        assert await receive(slow) == b""


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        pytest.param(b"nonsense\r\n\r\n", b"400 Bad Request", id="no HTTP"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            b"404 Not Found",
            id="body that is not coded as it says",
        ),
    ],
)
async def test_request_that_makes_no_sense_is_refused_and_not_logged(
    request_text: bytes,
    status: bytes,
    endpoint: Endpoint,
    netns: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await endpoint.add(netns, "web")

    with connect(netns) as connection:
        connection.sendall(request_text)
        answer = b""
        while part := await receive(connection):
            answer += part

    assert status in answer
    assert not caplog.records


async def test_connections_of_one_task_are_limited(
    endpoint: Endpoint, make_netns: MakeNetns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fargate_agent.tmds.server.MAX_CONNECTIONS", 2)
    netns, other_netns = await make_netns(), await make_netns()
    await endpoint.add(netns, "web")
    other = await endpoint.add(other_netns, "web")

    async with AsyncExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(connect(netns))
            assert (await ask(connection)).startswith(b"HTTP/1.1 404")
        third = stack.enter_context(connect(netns))

        assert await ask(third) == b""
        answer = await fetch(other_netns, f"/v4/{other.containers[0].metadata_id}")
        assert answer.status == 200
