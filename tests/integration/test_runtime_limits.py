"""Limits that the kernel keeps: memory, CPU, open files; and what is measured."""

from pathlib import Path

import pytest

from tests.fixtures.machine import wait_for
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

EAT = "busybox dd if=/dev/zero of=/dev/null bs={mib}M count=1"
"""Touches this much memory at once."""

TREES = Path("/sys/fs/cgroup")


def read_limit(path: str, v1: str, v2: str) -> str:
    """Read a limit that the kernel has, whichever version of cgroups it is."""
    unified = TREES / path.lstrip("/") / v2
    controller = "cpu" if v1.startswith("cpu") else "memory"
    file = unified if unified.exists() else TREES / controller / path.lstrip("/") / v1
    return file.read_text().split()[0]


async def test_a_container_over_its_memory_limit_is_killed_and_reported(bench: Bench) -> None:
    finished = await bench.run(f"exec {EAT.format(mib=200)}", memory=20)

    assert finished.status.code == 137
    assert finished.status.oom_killed


async def test_a_task_over_its_memory_limit_is_killed_and_reported(bench: Bench) -> None:
    finished = await bench.run(f"exec {EAT.format(mib=400)}", task={"memory": 64})

    assert finished.status.code == 137
    assert finished.status.oom_killed


async def test_a_loss_that_a_container_survives_is_not_reported(bench: Bench) -> None:
    finished = await bench.run(f"{EAT.format(mib=200)}; exit 0", memory=20)

    assert finished.status.code == 0
    assert not finished.status.oom_killed


async def test_stop_reports_a_kill_that_nobody_waited_for(bench: Bench) -> None:
    task = await bench.begin(f"exec {EAT.format(mib=200)}", memory=20)
    await bench.containerd.processes.wait(task.containers[0].id)

    status = await bench.runtime.stop(task.containers[0])

    assert status is not None
    assert status.oom_killed


async def test_the_task_is_bounded_as_a_whole(bench: Bench) -> None:
    task = await bench.begin("sleep 60", task={"cpu": 0.5, "memory": 256})

    assert read_limit(task.cgroup, "cpu.cfs_quota_us", "cpu.max") == "50000"
    assert read_limit(task.cgroup, "memory.limit_in_bytes", "memory.max") == str(256 << 20)


async def test_a_container_has_its_share_and_limit(bench: Bench) -> None:
    task = await bench.begin("sleep 60", cpu=512, memory=100)

    container = task.containers[0].cgroup
    assert read_limit(container, "cpu.shares", "cpu.weight") in {"512", "20"}
    assert read_limit(container, "memory.limit_in_bytes", "memory.max") == str(100 << 20)


async def test_files_are_limited_as_on_fargate_or_as_the_host_permits(bench: Bench) -> None:
    finished = await bench.run("ulimit -Sn; ulimit -Hn")

    soft, hard = map(int, finished.output.split())
    assert soft == hard <= 65535
    assert (hard < 65535) == any("nofile limit" in what for what, _ in bench.notes)


async def test_limits_of_the_definition_are_kept(bench: Bench) -> None:
    finished = await bench.run(
        "ulimit -Sn; ulimit -Hn; ulimit -c",
        ulimits=[
            {"name": "nofile", "softLimit": 100, "hardLimit": 200},
            {"name": "core", "softLimit": 0, "hardLimit": 0},
        ],
    )

    assert finished.output.split() == ["100", "200", "0"]


async def test_usage_grows_with_what_a_container_does(bench: Bench) -> None:
    task = await bench.begin("while :; do :; done", memory=100, stopTimeout=2)
    container = task.containers[0]

    usages = [(await bench.runtime.usage(task.containers))[container.id]]
    while usages[-1].cpu_total_ns <= usages[0].cpu_total_ns:
        usages.append((await bench.runtime.usage(task.containers))[container.id])

    assert usages[-1].memory_limit_bytes == 100 << 20
    assert usages[-1].memory_bytes > 0
    assert usages[-1].pids == 1


async def test_what_does_not_run_uses_nothing(bench: Bench) -> None:
    task = bench.plan({})

    assert await bench.runtime.usage(task.containers) == {}


async def test_release_ends_what_still_runs_in_the_tasks_cgroup(bench: Bench) -> None:
    task = bench.plan({})
    await bench.runtime.prepare(task)
    process = await bench.run_in_cgroup(task.cgroup)

    await bench.runtime.release(task)

    assert await process.wait() == -9
    wait_for(lambda: not list(TREES.glob(f"*/ecs/{task.id}")), "the cgroup to go", 5)
