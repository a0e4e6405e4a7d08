"""What is asked of containerd for the start of a task."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import grpc.aio
import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.drivers import Drivers
from fargate_agent.image.store import PullBehavior
from fargate_agent.runtime.views import render_key
from tests.fixtures.busybox import SNAPSHOTTER
from tests.fixtures.lives import Agent, plan_agent
from tests.fixtures.pulls import Puller
from tests.fixtures.runtime import Bench, make_runtime

pytestmark = pytest.mark.root

START = [
    "Containers.Create",
    "Images.Get",
    "Leases.Create",
    "Snapshots.Mounts",
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

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        path = client_call_details.method
        text = path.decode() if isinstance(path, bytes) else path
        name = text.rpartition(".")[2].replace("/", ".")
        self.names.append(name)
        call = await continuation(client_call_details, request)
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


async def test_layers_are_asked_for_when_the_record_keeps_them(
    bench: Bench, drivers: Drivers, calls: Calls
) -> None:
    await run_to_end(bench, drivers)
    calls.names.clear()

    await run_to_end(bench, drivers)

    order = ["Containers.Create", "Snapshots.Mounts", "Tasks.Create"]
    assert [name for name in calls.names if name in order] == order


async def test_image_that_has_gone_since_it_was_known_is_unpacked_again(
    bench: Bench, drivers: Drivers
) -> None:
    await run_to_end(bench, drivers)
    snapshots = bench.containerd.snapshots(SNAPSHOTTER)
    await snapshots.remove(render_key(bench.chain_id))
    await snapshots.remove(bench.chain_id)

    agent = await run_to_end(bench, drivers)

    assert agent.first.exit_code == 7
