"""A thousand programs, one after the other: nothing piles up."""

import asyncio
import gc
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from fargate_agent.plan import ContainerPlan, TaskPlan
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.execs import Output, runs_of
from tests.fixtures.machine import find_groups, shims, wait_for
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

CHECKS: Final = 1000
CONTAINERS: Final = 4
WARM_UP: Final = 40
"""After which all that is made once has been made."""

AGENT_GROWTH_MIB: Final = 4
"""Measured: less than 1 for 1,000 checks."""
DAEMONS_GROWTH_MIB: Final = 16
"""Go gives memory back when it likes to."""
SETTLE_S: Final = 30.0


def count_descriptors(pids: Iterable[int]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def measure_memory_mib(pids: Iterable[int]) -> float:
    """Return the anonymous memory of processes.

    Their programs' pages don't count: they are private as long as no other process maps the
    same file, so that the end of a containerd elsewhere would be growth here.
    """
    gc.collect()
    total_kib = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    return total_kib / 1024


def count_members(container: ContainerPlan) -> int:
    groups = find_groups(container.cgroup)
    return max(len((group / "cgroup.procs").read_text().split()) for group in groups)


async def check(bench: Bench, container: ContainerPlan, count: int) -> list[int]:
    argv = ("sh", "-c", "echo fine; exit 0")
    return [
        await bench.runtime.exec(container, "health", argv, Output().io(), 60) for _ in range(count)
    ]


async def check_all(bench: Bench, task: TaskPlan, count: int) -> set[int]:
    """Check all containers of a task, side by side; return the exit codes."""
    share = count // len(task.containers)
    async with asyncio.TaskGroup() as jobs:
        checks = [jobs.create_task(check(bench, one, share)) for one in task.containers]
    return {code for job in checks for code in job.result()}


@pytest.mark.timeout(600)
async def test_nothing_piles_up(bench: Bench, private_containerd: PrivateContainerd) -> None:
    task = bench.plan(
        *(
            {"name": f"c{number}", "command": ["sh", "-c", "sleep 1000"]}
            for number in range(CONTAINERS)
        ),
        cpu=16,  # what is run inside is held up by its task's share of the processors
    )
    await bench.prepare(task)
    for container in task.containers:
        await bench.runtime.start(task, await bench.create(task, container))
    daemons = [pid for pid, argv in shims().items() if bench.containerd.namespace in argv]
    daemons.append(private_containerd.pid)
    await check_all(bench, task, WARM_UP)

    def count() -> dict[str, int]:
        return {
            "descriptors of the agent": count_descriptors([os.getpid()]),
            "descriptors of containerd and its shims": count_descriptors(daemons),
            "jobs": len(asyncio.all_tasks(loop)),
            "processes": sum(map(count_members, task.containers)),
            "FIFOs": sum(len(runs_of(one)) for one in task.containers),
        }

    loop = asyncio.get_running_loop()
    before = count()
    agent_mib, daemons_mib = measure_memory_mib([os.getpid()]), measure_memory_mib(daemons)

    codes = await check_all(bench, task, CHECKS)

    assert codes == {0}
    wait_for(
        lambda: all(after <= before[what] for what, after in count().items()),
        "all to be as before",
        SETTLE_S,
    )
    assert measure_memory_mib([os.getpid()]) < agent_mib + AGENT_GROWTH_MIB
    assert measure_memory_mib(daemons) < daemons_mib + DAEMONS_GROWTH_MIB
