"""What a real container uses, as it is told."""

import asyncio
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.fixtures.registry import FakeRegistry
from tests.fixtures.requests import sign
from tests.fixtures.stack import Stack, tool

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


async def test_bucket_of_a_busy_container_arrives(stack: Stack, registry: FakeRegistry) -> None:
    arn = stack.run(
        tool("busy", "while :; do :; done"),
        tool("idle", "wget -q -O - http://10.213.64.1:5000/v2/ >/dev/null 2>&1; sleep 1000"),
    )
    await stack.wait_for(arn, "RUNNING")
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(50):
        while not found:
            found = await read_buckets(stack, arn)
            await asyncio.sleep(0.5)

    containers = {one["name"]: one for one in found[0]["containers"]}

    assert found[0]["at"] % 20 == 0
    assert set(containers) == {"busy", "idle"}
    busy, idle = containers["busy"], containers["idle"]
    assert 2 < busy["cpuPercent"]["max"] <= 15  # a quarter of a processor, of at least two
    assert idle["cpuPercent"]["max"] < busy["cpuPercent"]["max"] / 4
    assert 0 < busy["memoryMiB"]["max"] < 64
    assert 1 <= busy["cpuPercent"]["sampleCount"] <= 5
    assert found[0]["network"]["rxBytes"] > 0
    assert {"readBytes", "writeBytes"} == set(busy["storage"])
