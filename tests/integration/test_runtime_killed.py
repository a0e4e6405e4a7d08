"""What becomes of a container whose shim or logger was killed.

With each cgroup driver that works on this machine.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.cgroupdriver import CgroupDriverName
from tests.fixtures.machine import shims, wait_for
from tests.fixtures.runtime import Bench, require_driver
from tests.integration.test_runtime_loggers import logger_of, read_all, real_drivers

pytestmark = pytest.mark.root

TICKS = ["sh", "-c", "while :; do echo tick; sleep 0.02; done"]


@pytest.fixture(params=["systemd", "cgroupfs"])
def cgroup_driver(request: pytest.FixtureRequest) -> CgroupDriverName:
    driver: CgroupDriverName = request.param
    require_driver(driver)
    return driver


@pytest.fixture
def listener(bench: Bench) -> Iterator[socket.socket]:
    """A destination in the network namespace of tasks; what it gets waits in the kernel."""
    with socket_in_netns(bench.netns, socket.AF_INET, socket.SOCK_STREAM) as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


async def test_nothing_of_a_container_runs_when_it_is_stopped_without_its_shim(
    bench: Bench,
) -> None:
    task = await bench.begin("echo $$; trap '' TERM; sleep 300 & while :; do sleep 1; done")
    (container,) = task.containers
    await bench.wait_for_output(task, "1\n")
    pids = await bench.containerd.processes.pids(container.id)
    assert len(pids) >= 2

    for pid, argv in shims().items():
        if container.id in argv:
            os.kill(pid, signal.SIGKILL)
    await bench.runtime.stop(container)

    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    await bench.runtime.release(task)
    assert await bench.traces(task) == []


async def begin_logging(bench: Bench, driver: str, listener: socket.socket) -> TaskPlan:
    """Return when the first line of a task was written down."""
    host, port = listener.getsockname()
    options = {"fluentd-address": f"{host}:{port}"} if driver == "fluentd" else {}
    configuration = {"logDriver": driver, "options": options}
    task = bench.plan({"command": TICKS, "logConfiguration": configuration, "stopTimeout": 1})
    (container,) = task.containers
    await bench.runtime.prepare(task)
    uri = real_drivers()[driver].uri(task, container)
    await bench.runtime.create(task, container, bench.image(), uri)
    await bench.runtime.start(task, container)
    wait_for(lambda: "tick\n" in read_all(container.log_path.parent), "the first line", 10)
    return task


async def watch(bench: Bench, container: ContainerPlan, deadline_s: float = 5) -> bool:
    """Whether the loss of a logger is told."""
    try:
        async with asyncio.timeout(deadline_s):
            await bench.runtime.watch_logger(container)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("driver", ["json-file", "fluentd"])
async def test_logger_that_is_killed_is_noticed_by_whoever_watches_and_by_a_successor(
    bench: Bench, listener: socket.socket, driver: str
) -> None:
    (container,) = (await begin_logging(bench, driver, listener)).containers
    assert not await watch(bench, container, 0.2)
    watching = asyncio.create_task(watch(bench, container))
    await asyncio.sleep(0)

    os.kill(logger_of(container), signal.SIGKILL)

    assert await watching
    assert await watch(bench, container)


async def test_container_that_has_no_logger_loses_none(bench: Bench) -> None:
    task = bench.plan({"command": ["sleep", "60"], "stopTimeout": 0})
    (container,) = task.containers
    await bench.runtime.prepare(task)
    await bench.runtime.create(task, container, bench.image(), None)
    await bench.runtime.start(task, container)

    assert not await watch(bench, container, 0.2)
