"""One loop of samples for all readers of a task."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fargate_agent.drivers import ContainerUsage
from fargate_agent.errors import ContainerRuntimeError
from fargate_agent.network.netlink import LinkStats
from fargate_agent.plan import ContainerPlan, TaskPlan, plan_task
from fargate_agent.tmds import sampling
from fargate_agent.tmds.sampling import Pair, Sampler
from tests.messages import container_json, site, task_message
from tests.unit.test_tmds_stats import LINK, USAGE


class Machine:
    """Runs the containers whose CPU time it knows; each reading adds to that."""

    def __init__(self, *names: str) -> None:
        message = task_message(*map(container_json, names))
        self.task: TaskPlan = plan_task(message, site(Path("/nowhere")))
        self.cpu_ns = {one.id: 0 for one in self.task.containers}
        self.readings = 0
        self.broken = False

    async def read_usage(
        self, containers: tuple[ContainerPlan, ...]
    ) -> Mapping[str, ContainerUsage]:
        self.readings += 1
        if self.broken:
            raise ContainerRuntimeError("containerd is gone")
        for id_ in self.cpu_ns:
            self.cpu_ns[id_] += 1000
        now = datetime.now(UTC)
        return {
            one.id: replace(USAGE, cpu_total_ns=self.cpu_ns[one.id], read_at=now)
            for one in containers
            if one.id in self.cpu_ns
        }

    async def read_links(self, netns: Path) -> Mapping[str, LinkStats]:
        del netns
        assert self.cpu_ns, "nobody needs them"
        return {"eth1": LINK, "eth0": LINK}


@asynccontextmanager
async def sampling_of(machine: Machine) -> AsyncIterator[Sampler]:
    sampler = Sampler(machine.read_usage, machine.read_links)
    try:
        yield sampler
    finally:
        await sampler.forget(machine.task)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PERIOD_S", 0.02)


async def test_first_reader_waits_for_the_second_sample() -> None:
    machine = Machine("web")
    (web,) = machine.task.containers
    async with sampling_of(machine) as sampler:
        (pair,) = (await sampler.read(machine.task, (web,))).values()

    assert machine.readings == 2
    assert pair.earlier.usage.cpu_total_ns == 1000
    assert pair.later.usage.cpu_total_ns == 2000
    assert pair.later.links.keys() == {"eth1"}
    assert 0 < pair.earlier.system_cpu_ns <= pair.later.system_cpu_ns


async def test_readers_see_the_same_and_change_nothing_for_each_other() -> None:
    machine = Machine("web")
    async with sampling_of(machine) as sampler:
        first = await sampler.read(machine.task, machine.task.containers)
        again = [await sampler.read(machine.task, machine.task.containers) for _ in range(100)]

    assert all(pairs == first for pairs in again)
    assert machine.readings == 2


async def test_sampling_ends_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "IDLE_AFTER_S", 0.1)
    machine = Machine("web")
    sampler = Sampler(machine.read_usage, machine.read_links)

    await sampler.read(machine.task, machine.task.containers)
    assert list(sampler.watched) == [machine.task.id]
    async with asyncio.timeout(10):
        while list(sampler.watched):
            await asyncio.sleep(0.01)
    readings = machine.readings
    (pair,) = (await sampler.read(machine.task, machine.task.containers)).values()

    assert pair.earlier.usage.cpu_total_ns == (readings + 1) * 1000  # nothing of before
    await sampler.forget(machine.task)
    assert list(sampler.watched) == []


async def test_container_that_does_not_run_is_not_waited_for() -> None:
    machine = Machine("web", "log")
    web, log = machine.task.containers
    del machine.cpu_ns[log.id]
    async with sampling_of(machine) as sampler:
        found = await sampler.read(machine.task, machine.task.containers)
        alone = await sampler.read(machine.task, (log,))

    assert found.keys() == {web.id}
    assert alone == {}


async def test_container_that_was_restarted_shows_its_last_run_alone() -> None:
    machine = Machine("web")
    (web,) = machine.task.containers
    async with sampling_of(machine) as sampler:
        (old,) = (await sampler.read(machine.task, (web,))).values()
        machine.cpu_ns[web.id] = -500  # the next sample is of a new run
        async with asyncio.timeout(10):
            while (pair := (await sampler.read(machine.task, (web,)))[web.id]) == old:
                await asyncio.sleep(0.001)

    assert pair.earlier.usage.cpu_total_ns == 500
    assert pair.later.usage.cpu_total_ns == 1500


async def test_fault_is_told_and_the_next_sample_is_tried_all_the_same() -> None:
    machine = Machine("web")
    machine.broken = True
    async with sampling_of(machine) as sampler:
        with pytest.raises(ContainerRuntimeError):
            await sampler.read(machine.task, machine.task.containers)
        machine.broken = False
        found: dict[str, Pair] = {}
        async with asyncio.timeout(10):
            while not found:
                with suppress(ContainerRuntimeError):
                    found = await sampler.read(machine.task, machine.task.containers)
                await asyncio.sleep(0.001)

    assert found.keys() == {machine.task.containers[0].id}


async def test_one_sample_starts_no_loop() -> None:
    machine = Machine("web")
    sampler = Sampler(machine.read_usage, machine.read_links)

    samples = await sampler.take(machine.task, machine.task.containers)

    assert samples.keys() == {machine.task.containers[0].id}
    assert (machine.readings, list(sampler.watched)) == (1, [])
