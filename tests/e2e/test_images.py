"""Images on a machine without a registry, and what a pull tells while it goes on."""

import asyncio
import io
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.snapshots import SnapshotKind
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import build_image, random_layer, write_layout
from tests.fixtures.machine import wait_for
from tests.fixtures.registry import FakeRegistry, Fault
from tests.fixtures.stack import DEADLINE_S, REGISTRY, Stack, build_tool, make_stack

pytestmark = [pytest.mark.e2e, pytest.mark.root]

NAME = "docker.io/library/tool:1"


@asynccontextmanager
async def local(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(stack.socket))
    async with aiohttp.ClientSession("http://agent", connector=connector) as http:
        yield http


async def images(http: aiohttp.ClientSession) -> list[dict[str, Any]]:
    async with http.get("/v1/images") as answer:
        return list((await answer.json())["images"])


async def names(http: aiohttp.ClientSession) -> list[str]:
    return [image["name"] for image in await images(http)]


async def test_loaded_image_runs_without_a_registry_and_is_kept_while_it_is_used(
    tmp_path: Path, private_containerd: PrivateContainerd, outside: Any
) -> None:
    archive = write_layout(tmp_path / "tool.tar", {NAME: build_tool()})
    unused = "docker.io/library/unused:1"
    other = write_layout(tmp_path / "unused.tar", {unused: build_image()})
    policies = {"": {"require": "digest"}, "docker.io": {"require": "digest", "loaded": True}}
    settings = {
        "FARGATE_AGENT_IMAGE_PULL_BEHAVIOR": "prefer-cached",
        "FARGATE_AGENT_IMAGE_SIGNATURES": json.dumps(policies),
    }

    async with (
        make_stack(tmp_path, private_containerd, outside, **settings) as stack,
        local(stack) as http,
    ):
        for file in (archive, other):
            async with http.post("/v1/images/load", data=io.BytesIO(file.read_bytes())) as answer:
                assert answer.status == 200, await answer.text()
        assert sorted(await names(http)) == [NAME, unused]
        command = ["/bin/sh", "-c", "echo ran; exec sleep 1000"]
        arn = stack.run(
            {"name": "main", "image": "tool:1", "command": command, "stopTimeout": 2},
            subnet="subnet-default",
        )
        await stack.wait_for_log(arn, "ran")

        async with http.post("/v1/images/prune") as answer:
            assert (await answer.json())["removed"] == [unused]
        assert await names(http) == [NAME]

        refused = stack.run({"name": "main", "image": "r.invalid/tool:1", "command": ["/none"]})
        reason = (await stack.wait_for(refused, "STOPPED"))["stoppedReason"]
        assert "r.invalid/tool:1 is refused: the agent's policy image_signatures" in reason

        stack.stop(arn)
        await stack.wait_for(arn, "STOPPED")
        async with http.delete("/v1/images", params={"name": "tool:1"}) as answer:
            assert answer.status == 200, await answer.text()
        assert await names(http) == []
        assert stack.leftovers(arn) == []


async def test_pulled_images_are_removed_when_their_tasks_are_over_and_not_before(
    tmp_path: Path, private_containerd: PrivateContainerd, outside: Any, registry: FakeRegistry
) -> None:
    """With the last go the layers, and the view that containers were made of."""
    long, short = f"{REGISTRY}/tool:long", f"{REGISTRY}/tool:short"
    for tag in ("long", "short"):
        registry.add("tool", tag, build_tool())
    settings = {
        "FARGATE_AGENT_IMAGE_CLEANUP_INTERVAL_S": "0.1",
        "FARGATE_AGENT_IMAGE_MINIMUM_CLEANUP_AGE_S": "0",
    }
    async with (
        make_stack(tmp_path, private_containerd, outside, **settings) as stack,
        local(stack) as http,
    ):
        command = ["/bin/sh", "-c", "echo ran; exec sleep 1000"]
        arn = stack.run({"name": "main", "image": long, "command": command, "stopTimeout": 2})
        await stack.wait_for_log(arn, "ran")
        (image,) = await images(http)
        assert [user["taskArn"] for user in image["usedBy"]] == [arn]
        assert image["unpackedBytes"] > 0

        over = stack.run({"name": "main", "image": short, "command": ["/bin/sh", "-c", "exit 0"]})
        await stack.wait_for(over, "STOPPED")
        await wait_until_gone(http, short)
        assert await names(http) == [long]

        stack.stop(arn)
        await stack.wait_for(arn, "STOPPED")
        await wait_until_gone(http, long)
        assert stack.ctr("snapshots", "ls").splitlines()[1:] == []


async def wait_until_gone(http: aiohttp.ClientSession, name: str) -> None:
    async with asyncio.timeout(40):
        while name in await names(http):
            await asyncio.sleep(0.05)


async def test_what_is_no_archive_is_refused_and_the_agent_goes_on(stack: Stack) -> None:
    async with local(stack) as http:
        params, data = {"file": "web.txt"}, b"not a tar file" * 1000
        async with http.post("/v1/images/load", params=params, data=data) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"].startswith("web.txt: this is a file of")
        assert await names(http) == []


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/v1/tasks/..%2f..%2fetc/logs", id="path characters"),
        pytest.param("/v1/tasks/" + "0" * 32 + "/logs", id="unknown task"),
        pytest.param("/v1/tasks/" + "0" * 32 + "/progress", id="progress of an unknown task"),
    ],
)
async def test_task_that_is_not_here_is_not_found(stack: Stack, path: str) -> None:
    async with local(stack) as http, http.get(path) as answer:
        assert answer.status == 404


async def test_pull_tells_how_far_it_is_and_that_it_is_tried_again(
    stack: Stack, registry: FakeRegistry
) -> None:
    image = build_image([random_layer(4_000_000)])
    (layer,) = image.layers
    gate = registry.gates[layer] = asyncio.Event()
    registry.faults[layer].append(Fault(cut_after=3_000_000))
    registry.add("big", "1", image)
    arn = stack.run({"name": "main", "image": f"{REGISTRY}/big:1", "command": ["/none"]})
    path = f"/v1/tasks/{arn.rpartition('/')[2]}/progress"

    async with asyncio.timeout(30), local(stack) as http:
        while (answer := await http.get(path)).status == 404:  # it has not reached the agent
            await asyncio.sleep(0.02)
        told = []
        async for line in answer.content:
            told.append(json.loads(line))
            if 0 < told[-1]["fetchedBytes"] < told[-1]["totalBytes"] and not gate.is_set():
                async with http.get(path, params={"follow": "0"}) as now:
                    assert [json.loads(one) for one in (await now.text()).splitlines()] == told[-1:]
                gate.set()
    await stack.wait_for(arn, "STOPPED")

    assert gate.is_set(), told
    assert any(one["retry"].startswith("try 2 of 5: failed to copy: ") for one in told)
    assert told[-1]["retry"] == ""
    assert told[-1]["done"]
    assert told[-1]["fetchedBytes"] == told[-1]["totalBytes"] == len(image.blobs[layer])
    assert told[-1]["unpackedLayers"] == told[-1]["totalLayers"] == 1


@pytest.mark.timeout(120)
async def test_an_agent_that_is_killed_while_it_unpacks_leaves_nothing(
    stack: Stack, registry: FakeRegistry
) -> None:
    image = build_image([random_layer(100_000), random_layer(4_000_000), random_layer(4_000_000)])
    for layer in image.layers[1:]:
        registry.gates[layer] = asyncio.Event()
    registry.add("killed", "1", image)
    arn = stack.run({"name": "main", "image": f"{REGISTRY}/killed:1", "command": ["/none"]})
    async with Containerd(stack.containerd.socket, stack.namespace) as client:
        snapshots = client.snapshots("overlayfs")

        async def find_staged() -> set[str]:
            return {one.key for one in await snapshots.list() if one.key.startswith("fargate-unp")}

        async def count_begun() -> int:
            return min(len(await find_staged()), len(find_readers(stack)))

        async with asyncio.timeout(DEADLINE_S):
            while await count_begun() < 2:
                await asyncio.sleep(0.02)
        begun, processes = await find_staged(), find_readers(stack)

        stack.agent.end(signal.SIGKILL)

        wait_for(lambda: not any(map(is_running, processes)), "the end of all", DEADLINE_S)
        stack.agent.start()
        wait_for(lambda: stack.agent.wrote("agent is ready"), "the next agent", DEADLINE_S)
        assert not begun & await find_staged()
        for gate in registry.gates.values():
            gate.set()
        await stack.wait_for(arn, "STOPPED")
        assert await find_staged() == set()
        left = [one for one in await snapshots.list() if one.kind is SnapshotKind.COMMITTED]
        assert len(left) == len(image.layers)
    assert find_readers(stack) == []


def find_readers(stack: Stack) -> list[int]:
    """Return the processes that unpack layers into snapshots of the stack's containerd."""
    directory = str(stack.containerd.directory).encode()
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = file.read_bytes()
            if b"image.layers" in line and directory in line:
                found.append(int(file.parent.name))
    return found


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
