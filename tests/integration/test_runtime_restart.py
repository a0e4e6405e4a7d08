"""What an agent finds that its predecessor left, and loggers that misbehave."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.processes import Process, Processes, ProcessStatus
from fargate_agent.errors import (
    CannotCreateContainerError,
    ContainerRuntimeError,
    ContainerRuntimeTimeoutError,
)
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.runc import LOSS_PATIENCE_S, RuncRuntime
from tests.fixtures.busybox import SNAPSHOTTER
from tests.fixtures.machine import shims, wait_for
from tests.fixtures.runtime import Bench, make_runtime

pytestmark = pytest.mark.root

TRAP = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"

HANGING_LOGGER = "#!/bin/sh\ntrap '' TERM\necho $$ >\"$2\"\nexec sleep 600\n"
"""Never says that it is ready; tells its process id."""


@pytest.fixture
async def successor(bench: Bench) -> AsyncIterator[RuncRuntime]:
    """The runtime of an agent that starts later, with a connection of its own."""
    async with Containerd(bench.containerd.address, bench.containerd.namespace) as containerd:
        yield make_runtime(containerd, [])


@pytest.fixture
def hanging_logger(bench: Bench) -> Path:
    logger = bench.directory / "hanging-logger"
    logger.write_text(HANGING_LOGGER)
    logger.chmod(0o755)
    return logger


def shims_of(container: ContainerPlan) -> list[int]:
    return [pid for pid, argv in shims().items() if container.id in argv]


async def interrupt_create(bench: Bench, task: TaskPlan, logger: Path) -> int:
    """Let go of a creation in the middle, when the logger runs; return the logger's process id."""
    container = task.containers[0]
    file = bench.output_file(container)
    creating = asyncio.create_task(
        bench.runtime.create(task, container, bench.image(), bench.log_uri(container, logger))
    )
    await bench.wait_for_output(task, "\n")
    creating.cancel()
    await asyncio.wait([creating])
    pid = int(file.read_text())
    file.unlink()
    return pid


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_successor_takes_a_running_container_over(
    bench: Bench, successor: RuncRuntime
) -> None:
    task = await bench.begin(TRAP)
    container = task.containers[0]
    await bench.wait_for_output(task, "ready")

    await successor.prepare(task)
    await successor.create(task, container, bench.image(), bench.log_uri(container))
    await successor.start(task, container)

    process = await bench.containerd.processes.get(container.id)
    assert process.status is ProcessStatus.RUNNING
    status = await successor.stop(container)
    assert status is not None
    assert status.code == 3


async def test_a_container_whose_shim_does_not_answer_for_a_while_is_there(
    bench: Bench, successor: RuncRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await bench.begin(TRAP)
    get, asked = Processes.get, list[Process]()

    async def answer(processes: Processes, container_id: str, *, exec_id: str = "") -> Process:
        asked.append(await get(processes, container_id, exec_id=exec_id))
        is_late = len(asked) <= 3
        return replace(asked[-1], status=ProcessStatus.UNKNOWN) if is_late else asked[-1]

    monkeypatch.setattr(Processes, "get", answer)

    assert await successor.exists(task.containers[0])
    assert len(asked) == 4


async def test_a_successor_learns_how_a_container_ended_meanwhile(
    bench: Bench, successor: RuncRuntime
) -> None:
    task = await bench.begin("exit 5")
    await bench.runtime.wait(task.containers[0])

    await successor.start(task, task.containers[0])

    assert (await successor.wait(task.containers[0])).code == 5


@pytest.mark.parametrize("made", ["view", "record", "process"])
async def test_create_goes_on_where_a_predecessor_was_killed(
    bench: Bench, successor: RuncRuntime, made: str
) -> None:
    task = bench.plan({"command": ["sh", "-c", "exit 6"]})
    container = task.containers[0]
    await bench.prepare(task)
    await bench.create(task)
    if made != "process":
        await bench.containerd.processes.force_delete(container.id)
    if made == "view":
        await bench.containerd.containers.delete(container.id)

    await successor.create(task, container, bench.image(), bench.log_uri(container))
    await successor.start(task, container)

    assert (await successor.wait(container)).code == 6


async def test_create_goes_on_after_one_that_was_cut_off_by_its_logger(
    bench: Bench, successor: RuncRuntime, hanging_logger: Path
) -> None:
    task = bench.plan({"command": ["sh", "-c", "exit 6"]})
    container = task.containers[0]
    await bench.prepare(task)
    logger = await interrupt_create(bench, task, hanging_logger)

    await successor.create(task, container, bench.image(), bench.log_uri(container))
    await successor.start(task, container)

    assert (await successor.wait(container)).code == 6
    assert not runs(logger)


async def test_stop_ends_what_a_creation_that_was_cut_off_left(
    bench: Bench, hanging_logger: Path
) -> None:
    task = bench.plan({})
    await bench.prepare(task)
    logger = await interrupt_create(bench, task, hanging_logger)

    status = await bench.runtime.stop(task.containers[0])
    await bench.release(task)

    assert status is None
    assert not runs(logger)
    assert await bench.traces(task) == []


async def test_a_logger_that_never_gets_ready_is_given_up(
    bench: Bench, hanging_logger: Path
) -> None:
    task = bench.plan({})
    container = task.containers[0]
    impatient = make_runtime(bench.containerd, [], create_timeout_s=5)
    await impatient.prepare(task)

    with pytest.raises(ContainerRuntimeTimeoutError) as caught:
        await impatient.create(
            task, container, bench.image(), bench.log_uri(container, hanging_logger)
        )

    assert caught.value.reason == (
        "ContainerRuntimeTimeoutError: Could not transition to created; timed out after waiting 5s"
    )
    assert await impatient.stop(container) is None
    await impatient.release(task)
    assert not runs(int(bench.output_file(container).read_text()))
    assert await bench.traces(task) == []


async def test_a_logger_that_is_missing_is_reported_without_its_path(bench: Bench) -> None:
    task = bench.plan({})
    container = task.containers[0]
    await bench.prepare(task)
    logger = bench.directory / "no-such-logger"

    with pytest.raises(CannotCreateContainerError) as caught:
        await bench.runtime.create(task, container, bench.image(), bench.log_uri(container, logger))

    assert "start the container's logger: no such file or directory" in caught.value.reason
    assert str(bench.directory) not in caught.value.reason


async def test_stop_of_a_container_that_never_started_gives_no_exit(bench: Bench) -> None:
    task = bench.plan({})
    await bench.prepare(task)
    container = await bench.create(task)

    assert await bench.runtime.stop(container) is None
    await bench.release(task)
    assert await bench.traces(task) == []


async def test_stop_does_without_a_shim_that_was_killed(bench: Bench) -> None:
    task = await bench.begin("sleep 60")
    container = task.containers[0]
    for pid in shims_of(container):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not shims_of(container), "the shim to end", 5)

    await bench.runtime.stop(container)
    await bench.release(task)

    assert await bench.traces(task) == []


async def test_wait_says_so_when_nobody_knows_how_a_container_ended(bench: Bench) -> None:
    task = await bench.begin("sleep 60")
    container = task.containers[0]
    await bench.containerd.processes.force_delete(container.id)

    began = time.monotonic()
    with pytest.raises(ContainerRuntimeError, match="nobody knows how the container ended"):
        await bench.runtime.wait(container)
    assert time.monotonic() - began >= LOSS_PATIENCE_S  # in which a machine may go down


async def test_what_a_container_wrote_to_its_hosts_file_outlives_the_agent(
    bench: Bench, successor: RuncRuntime
) -> None:
    task = await bench.begin("echo 10.0.0.9 own >>/etc/hosts; echo ready; sleep 60")
    await bench.wait_for_output(task, "ready")

    await successor.prepare(task)

    assert "own" in (task.storage / "etc" / "hosts").read_text()


async def test_a_task_without_a_plan_is_found_and_removed(
    bench: Bench, successor: RuncRuntime
) -> None:
    task = await bench.begin("trap '' TERM; while :; do sleep 0.1; done")

    kept = await successor.sweep({task.id})
    swept = await successor.sweep(())

    assert (kept, swept) == ([], [f"containers of task {task.id}"])
    assert await bench.traces(task) == [f"directory {task.directory}"]


async def test_containers_of_a_task_stop_side_by_side(bench: Bench) -> None:
    deaf = {"command": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], "stopTimeout": 4}
    task = bench.plan(*({"name": f"c{number}", **deaf} for number in range(3)))
    await bench.prepare(task)
    for container in task.containers:
        await bench.runtime.start(task, await bench.create(task, container))
    began = time.monotonic()

    async with asyncio.TaskGroup() as group:
        for container in task.containers:
            group.create_task(bench.runtime.stop(container))
    await bench.release(task)

    assert time.monotonic() - began < 3 * 4
    assert await bench.traces(task) == []


async def test_no_snapshot_is_left_when_a_record_was_never_made(bench: Bench) -> None:
    task = bench.plan({"user": "nosuch"})
    await bench.prepare(task)
    with pytest.raises(CannotCreateContainerError):
        await bench.create(task)

    await bench.runtime.stop(task.containers[0])

    snapshots = await bench.containerd.snapshots(SNAPSHOTTER).list()
    assert [one.key for one in snapshots if one.key.startswith(task.id)] == []
