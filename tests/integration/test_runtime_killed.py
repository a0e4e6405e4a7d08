"""What becomes of a container whose shim was killed.

With each cgroup driver that works on this machine.
"""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from fargate_agent.runtime.cgroupdriver import CgroupDriverName
from tests.fixtures.machine import shims
from tests.fixtures.runtime import Bench, require_driver

pytestmark = pytest.mark.root


@pytest.fixture(params=["systemd", "cgroupfs"])
def cgroup_driver(request: pytest.FixtureRequest) -> CgroupDriverName:
    driver: CgroupDriverName = request.param
    require_driver(driver)
    return driver


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
    await bench.release(task)
    assert await bench.traces(task) == []


async def test_container_that_has_no_logger_loses_none(bench: Bench) -> None:
    task = bench.plan({"command": ["sleep", "60"], "stopTimeout": 0})
    (container,) = task.containers
    await bench.prepare(task)
    await bench.runtime.create(task, container, bench.image(), None)
    await bench.runtime.start(task, container)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await bench.runtime.watch_logger(container)
