"""What telemetry costs: many containers, in time of a processor and in memory."""

import asyncio
import secrets
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from fargate_agent.plan import plan_task
from fargate_agent.runtime.cgroupdriver import CgroupDrivers, read_cgroup_drivers
from fargate_agent.task.runner import TaskRun
from fargate_agent.task.status import ContainerFacts, ContainerStatus
from fargate_agent.telemetry.groups import GroupReader, GroupReading
from fargate_agent.telemetry.outbox import MAX_FRAMES, Outbox
from fargate_agent.telemetry.publisher import SAMPLE_S, Publisher
from fargate_agent.telemetry.sampler import Sampler
from tests.messages import container_json, site, task_arn, task_message

IDLE: Final = 100
"""Containers that are there and do nothing."""


@pytest.fixture
def cgroups() -> CgroupDrivers:
    return read_cgroup_drivers("cgroupfs")


def make_run(root: Path, task_id: str, containers: int) -> TaskRun:
    messages = [container_json(f"c{number}") for number in range(containers)]
    plan = plan_task(task_message(*messages, arn=task_arn(task_id)), site(root), "key")
    plan = replace(plan, netns=Path("/proc/self/ns/net"))
    run = TaskRun(plan=plan, stop=asyncio.get_running_loop().create_future())
    for container in plan.containers:
        run.facts.containers[container.name] = ContainerFacts(
            name=container.name, runtime_id=container.id, status=ContainerStatus.RUNNING
        )
    return run


@pytest.fixture
def groups(cgroups: CgroupDrivers) -> Iterator[list[str]]:
    """Names of tasks, whose control groups are removed afterwards."""
    made: list[str] = []
    yield made
    for task_id in made:
        cgroups.remove(f"/ecs/{task_id}", 10)


def make_groups(cgroups: CgroupDrivers, run: TaskRun) -> None:
    cgroups.drivers[0].ensure(run.plan.cgroup, memory_mib=None, pids_max=10)
    for container in run.plan.containers:
        for tree in cgroups.cgroups.trees:
            (tree / container.cgroup.lstrip("/")).mkdir(exist_ok=True)


@pytest.mark.root
async def test_hundred_idle_containers_take_less_than_a_hundredth_of_a_processor(
    tmp_path: Path, cgroups: CgroupDrivers, groups: list[str]
) -> None:
    runs = [make_run(tmp_path, secrets.token_hex(16), 2) for _ in range(IDLE // 2)]
    groups += [run.plan.id for run in runs]
    for run in runs:
        await asyncio.to_thread(make_groups, cgroups, run)
    sampler = Sampler(GroupReader(cgroups), lambda: runs, cores=2, fresh_s=0)
    publisher = Publisher(sampler, Outbox(), lambda: "")
    await sampler.sample()

    began_s = time.process_time()
    for _ in range(4):
        await sampler.sample()
    await publisher.publish(0)
    used_s = time.process_time() - began_s

    assert sum(len(task.containers) for task in sampler.tasks.values()) == IDLE
    assert used_s < 4 * SAMPLE_S / 100


class EvenReader(GroupReader):
    """Finds every group, without a kernel."""

    def __init__(self) -> None:
        self.cpu_ns = 0

    def read(self, path: str) -> GroupReading:
        self.cpu_ns += 1000
        return GroupReading(
            group=1,
            cpu_ns=self.cpu_ns,
            memory_bytes=1 << 20,
            cache_bytes=0,
            read_bytes=0,
            written_bytes=0,
        )


async def test_thousand_containers_and_no_control_plane_take_a_bounded_memory(
    tmp_path: Path,
) -> None:
    runs = [make_run(tmp_path, secrets.token_hex(16), 10) for _ in range(100)]
    outbox = Outbox()
    sampler = Sampler(EvenReader(), lambda: runs, cores=2, fresh_s=0)
    publisher = Publisher(sampler, outbox, lambda: "")

    async def minute() -> int:
        for _ in range(3):
            for _ in range(2):
                await sampler.sample()
            await publisher.publish(0)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        after_one = after_three = await minute()
        for _ in range(2):
            after_three = await minute()
    finally:
        tracemalloc.stop()

    assert len(outbox) == MAX_FRAMES
    assert outbox.dropped == 3 * 3 * 10 - MAX_FRAMES
    assert after_one < 32 << 20
    assert after_three < after_one * 1.1
    runs.clear()
    await publisher.publish(0)
    assert sampler.tasks == {}
