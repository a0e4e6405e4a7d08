"""Limits that the kernel keeps: memory, CPU, open files; and what is measured.

With each cgroup driver that works on this machine.
"""

import contextlib
from dataclasses import replace

import pytest

from fargate_agent.runtime.cgroupdriver import CgroupDriverName
from tests.fixtures.machine import find_groups, wait_for
from tests.fixtures.runtime import Bench, make_runtime, require_driver

pytestmark = pytest.mark.root

EAT = "busybox dd if=/dev/zero of=/dev/null bs={mib}M count=1"
"""Touches this much memory at once."""


@pytest.fixture(params=["systemd", "cgroupfs"])
def cgroup_driver(request: pytest.FixtureRequest) -> CgroupDriverName:
    driver: CgroupDriverName = request.param
    require_driver(driver)
    return driver


def read_limits(path: str, *names: str) -> set[str]:
    """Read a limit that the kernel has, whichever version of cgroups it is."""
    found = set()
    for group in find_groups(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found.add((group / name).read_text().split()[0])
    return found


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

    wait_for(
        lambda: read_limits(task.cgroup, "cpu.cfs_quota_us", "cpu.max") == {"50000"},
        "the bound of the processors",
        5,
    )
    assert read_limits(task.cgroup, "memory.limit_in_bytes", "memory.max") == {str(256 << 20)}
    assert read_limits(task.cgroup, "memory.swap.max") <= {"0"}


async def test_a_container_has_its_share_and_limit(bench: Bench) -> None:
    task = await bench.begin("sleep 60", cpu=512, memory=100)

    container = task.containers[0].cgroup
    assert read_limits(container, "cpu.shares", "cpu.weight") <= {"512", "20", "59"}
    assert read_limits(container, "memory.limit_in_bytes", "memory.max") == {str(100 << 20)}
    assert read_limits(container, "pids.max") == {"512"}
    assert read_limits(task.cgroup, "pids.max") == {"640"}


async def test_container_that_makes_processes_without_end_leaves_its_task_some(
    bench: Bench,
) -> None:
    forks = "(while :; do sleep 60 & done) & exec sleep 60"
    task = bench.plan(
        {"command": ["sh", "-c", forks], "stopTimeout": 1},
        {"name": "other", "command": ["sh", "-c", "exit 0"]},
    )

    first, second = task.containers
    await bench.prepare(task)
    for container in task.containers:
        await bench.runtime.create(task, container, bench.image(), bench.log_uri(container))
    await bench.runtime.start(task, first)
    wait_for(lambda: read_limits(first.cgroup, "pids.current") == {"512"}, "all processes", 20)
    await bench.runtime.start(task, second)

    assert (await bench.runtime.wait(second)).code == 0
    assert await bench.runtime.stop(first)


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
    # more than one process, or thread, is runC, which becomes the container
    while usages[-1].cpu_total_ns <= usages[0].cpu_total_ns or usages[-1].pids > 1:
        usages.append((await bench.runtime.usage(task.containers))[container.id])

    assert usages[-1].memory_limit_bytes == 100 << 20
    assert usages[-1].memory_bytes > 0
    assert usages[-1].pids == 1


async def test_what_does_not_run_uses_nothing(bench: Bench) -> None:
    task = bench.plan({})

    assert await bench.runtime.usage(task.containers) == {}


async def test_release_ends_what_still_runs_in_the_tasks_cgroup(bench: Bench) -> None:
    task = bench.plan({})
    await bench.prepare(task)
    process = await bench.run_in_cgroup(task.cgroup)

    await bench.release(task)

    assert await process.wait() == -9
    assert not find_groups(task.cgroup)


async def test_siblings_share_the_processors_as_they_are_told(
    bench: Bench, cgroup_driver: CgroupDriverName
) -> None:
    task = bench.plan(
        {"name": "web", "cpu": 512, "memoryReservation": 32, "command": ["sleep", "60"]},
        {"name": "side", "cpu": 256, "command": ["sleep", "60"]},
    )
    await bench.prepare(task)
    for container in task.containers:
        await bench.runtime.start(task, await bench.create(task, container))

    weights: dict[str, list[int]] = {}
    reserved: dict[str, list[int]] = {}
    for container in task.containers:
        groups = find_groups(container.cgroup)
        levels = {group.parent if cgroup_driver == "systemd" else group for group in groups}
        for name, found in (("cpu.weight", weights), ("memory.low", reserved)):
            found[container.name] = [
                int(file.read_text()) for level in levels if (file := level / name).exists()
            ]

    if weights["web"]:  # cgroup v2
        assert weights["web"] > weights["side"]
        assert (reserved["web"], reserved["side"]) == ([32 << 20], [0])
    else:
        assert read_limits(task.containers[0].cgroup, "cpu.shares") == {"512"}


async def test_a_task_without_limits_of_its_containers_has_its_own_in_the_usage(
    bench: Bench,
) -> None:
    task = await bench.begin("sleep 60")
    container = task.containers[0]

    usage = (await bench.runtime.usage(task.containers))[container.id]

    assert usage.memory_limit_bytes == 0
    assert usage.pids_limit == 512
    assert usage.memory_stats.keys() & {"inactive_file", "total_inactive_file"}
    assert not usage.memory_stats.keys() & {"usage", "usage_limit"}


async def test_a_task_keeps_its_driver_when_the_setting_changes(
    bench: Bench, cgroup_driver: CgroupDriverName
) -> None:
    other: CgroupDriverName = "cgroupfs" if cgroup_driver == "systemd" else "systemd"
    require_driver(other)
    task = bench.plan(
        {"name": "web", "command": ["sh", "-c", "sleep 60"]},
        {"name": "late", "command": ["sh", "-c", f"exec {EAT.format(mib=200)}"], "memory": 20},
    )
    await bench.begin_planned(task)
    groups = find_groups(task.cgroup)
    successor = make_runtime(bench.containerd, [], cgroup_driver=other)

    await successor.prepare(task)
    late = task.containers[1]
    await successor.create(task, late, bench.image(), bench.log_uri(late))
    await successor.start(task, late)
    status = await successor.wait(late)
    usages = await successor.usage(task.containers[:1])

    assert find_groups(task.cgroup) == groups
    assert (status.code, status.oom_killed) == (137, True)
    assert usages[task.containers[0].id].memory_bytes > 0

    for container in task.containers:
        await successor.stop(replace(container, stop_timeout_s=0))
    await successor.sweep(())
    assert not find_groups(task.cgroup)
