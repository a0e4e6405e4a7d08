"""What is asked of containerd for the start of a task."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import grpc.aio
import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.drivers import Drivers
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.image.store import PullBehavior
from tests.fixtures.busybox import SNAPSHOTTER
from tests.fixtures.lives import Agent, plan_agent
from tests.fixtures.pulls import Puller
from tests.fixtures.runtime import Bench, make_runtime

pytestmark = pytest.mark.root

START = [
    "Containers.Create",
    "Images.Get",
    "Leases.Create",
    "Snapshots.Prepare",
    "Tasks.Create",
    "Tasks.Start",
    "Tasks.Wait",
]
"""Each once; in the order of the alphabet, for some are made side by side."""

DEADLINE_S = 20

IMAGE = "test.example/busybox:latest"


class Calls(grpc.aio.UnaryUnaryClientInterceptor):
    """Notes the calls that are one question and one answer."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.while_it_ran: list[str] = []
        """Those that were made until a process ended."""
        self.snapshot_is_there: Callable[[], Awaitable[object]] | None = None
        """Holds up the answer to who has asked for a snapshot."""

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        path = client_call_details.method
        text = path.decode() if isinstance(path, bytes) else path
        name = text.rpartition(".")[2].replace("/", ".")
        self.names.append(name)
        call = await continuation(client_call_details, request)
        if name == "Snapshots.Prepare" and self.snapshot_is_there:
            await call
            await self.snapshot_is_there()
        if name == "Tasks.Wait" and not self.while_it_ran:
            await call
            self.while_it_ran = [*self.names]
        return call


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def drivers(
    bench: Bench, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Drivers]:
    """Real ones as far as they call containerd."""
    with monkeypatch.context() as patch:
        channel = partial(grpc.aio.insecure_channel, interceptors=[calls])
        patch.setattr(grpc.aio, "insecure_channel", channel)
        client = Containerd(bench.containerd.address, bench.containerd.namespace)
    async with client:
        yield replace(
            plan_agent(bench, {}).drivers,
            runtime=make_runtime(client, []),
            images=Puller(containerd=client).store(behavior=PullBehavior.PREFER_CACHED),
        )


async def run_to_end(bench: Bench, drivers: Drivers) -> Agent:
    """Run a task of one container to its end, as it comes by a message."""
    agent = plan_agent(bench, {"image": IMAGE, "command": ["sh", "-c", "sleep 0.1; exit 7"]})
    agent.drivers = drivers
    await agent.work()
    return agent


async def test_task_of_one_container_is_seven_calls(
    bench: Bench, drivers: Drivers, calls: Calls
) -> None:
    await run_to_end(bench, drivers)  # the image is looked into once
    calls.names.clear()
    calls.while_it_ran.clear()

    agent = await run_to_end(bench, drivers)

    assert agent.first.exit_code == 7
    assert sorted(calls.while_it_ran) == START


async def test_record_is_made_while_the_snapshot_is(
    bench: Bench, drivers: Drivers, calls: Calls
) -> None:
    await run_to_end(bench, drivers)
    calls.names.clear()

    async def wait_for_record() -> None:
        async with asyncio.timeout(DEADLINE_S):
            while "Containers.Create" not in calls.names:
                await asyncio.sleep(0.001)

    calls.snapshot_is_there = wait_for_record

    assert (await run_to_end(bench, drivers)).first.exit_code == 7


async def test_record_that_fails_waits_for_the_snapshot_that_is_to_be_removed(
    bench: Bench, drivers: Drivers, calls: Calls
) -> None:
    await run_to_end(bench, drivers)
    answer = asyncio.Event()
    calls.snapshot_is_there = answer.wait
    task = bench.plan({"user": "nosuch"})
    await drivers.runtime.prepare(task)

    creating = asyncio.create_task(
        drivers.runtime.create(task, task.containers[0], bench.image(), None)
    )
    done_before = (await asyncio.wait({creating}, timeout=0.3))[0]
    answer.set()
    with pytest.raises(CannotCreateContainerError, match="nosuch"):
        await creating

    assert not done_before


async def test_image_that_has_gone_since_it_was_known_is_unpacked_again(
    bench: Bench, drivers: Drivers
) -> None:
    await run_to_end(bench, drivers)
    await bench.containerd.snapshots(SNAPSHOTTER).remove(bench.chain_id)

    agent = await run_to_end(bench, drivers)

    assert agent.first.exit_code == 7
