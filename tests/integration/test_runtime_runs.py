"""Containers that are started again where they stand: what stays, and what begins anew."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.containerd.processes import Process, Processes
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.plan import ContainerPlan, TaskPlan
from tests.fixtures.machine import shims, wait_for
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

COUNT = (
    "echo >>/count; while read _; do echo again; done </count; busybox wc -l </count; exit {code}"
)

SLOW_LOGGER = """\
#!/bin/sh
trap '' TERM
exec 5>&-
echo "logger begins" >>"$2"
cat <&3 >>"$2"
sleep 1
echo "logger ends" >>"$2"
"""


async def restart(bench: Bench, task: TaskPlan, logger: Path | None = None) -> None:
    container = task.containers[0]
    await bench.runtime.restart(task, container, bench.log_uri(container, logger))


async def run_again(bench: Bench, task: TaskPlan) -> int:
    await restart(bench, task)
    await bench.runtime.start(task, task.containers[0])
    return (await bench.runtime.wait(task.containers[0])).code


def shims_of(container: ContainerPlan) -> list[int]:
    return [pid for pid, argv in shims().items() if container.id in argv]


@pytest.mark.parametrize("terminal", [False, True], ids=["streams", "terminal"])
async def test_files_stay_and_output_goes_on(bench: Bench, terminal: bool) -> None:
    script = "echo >>/count; busybox wc -l </count; exit 7"
    task = await bench.begin(script, pseudoTerminal=terminal)
    codes = [(await bench.runtime.wait(task.containers[0])).code]

    codes += [await run_again(bench, task) for _ in range(2)]

    finished = await bench.finish(task)
    assert codes == [7, 7, 7]
    assert finished.output.split() == ["1", "2", "3"]
    assert await bench.traces(task) == []


@pytest.mark.parametrize("left", ["ended", "deleted", "created", "without its shim"])
async def test_restart_goes_on_where_a_predecessor_was_killed(bench: Bench, left: str) -> None:
    task = await bench.begin("echo >>/count; busybox wc -l </count; exit 7")
    container = task.containers[0]
    await bench.runtime.wait(container)
    if left == "deleted":
        await bench.containerd.processes.delete(container.id)
    if left == "created":
        await restart(bench, task)
    if left == "without its shim":
        for pid in shims_of(container):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not shims_of(container), "the shim to end", 20)

    code = await run_again(bench, task)

    finished = await bench.finish(task)
    assert code == 7
    assert finished.output.split() == ["1", "2"]
    assert await bench.traces(task) == []


async def test_restart_leaves_alone_what_runs(bench: Bench) -> None:
    task = await bench.begin("sleep 60")
    container = task.containers[0]
    before = await bench.containerd.processes.get(container.id)

    await restart(bench, task)

    assert await bench.containerd.processes.get(container.id) == before


async def test_restart_of_what_was_never_created_is_refused(bench: Bench) -> None:
    task = bench.plan({})
    await bench.prepare(task)

    with pytest.raises(CannotCreateContainerError):
        await restart(bench, task)


async def test_stop_ends_a_container_that_was_restarted(bench: Bench) -> None:
    task = await bench.begin(
        "trap 'exit 3' TERM; echo ready; while [ -e /ran ]; do sleep 0.1; done; echo >/ran"
    )
    container = task.containers[0]
    await bench.runtime.wait(container)
    await restart(bench, task)
    await bench.runtime.start(task, container)
    await bench.wait_for_output(task, "ready\nready")

    status = await bench.runtime.stop(container)

    assert status is not None
    assert status.code == 3


async def test_stop_tells_no_end_where_a_restart_was_clearing_away_the_run_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await bench.begin("exit 7")
    container = task.containers[0]
    await bench.runtime.wait(container)
    get = Processes.get

    async def get_just_before(processes: Processes, id_: str, **options: Any) -> Process:
        found = await get(processes, id_, **options)
        monkeypatch.setattr(Processes, "get", get)
        await processes.delete(id_)
        return found

    monkeypatch.setattr(Processes, "get", get_just_before)

    assert await bench.runtime.stop(container) is None

    await bench.release(task)
    assert await bench.traces(task) == []


async def test_a_run_is_not_called_killed_for_the_one_before_it(bench: Bench) -> None:
    eat = "busybox dd if=/dev/zero of=/dev/null bs=200M count=1"
    task = await bench.begin(f"[ -e /ran ] && exit 137; echo >/ran; exec {eat}", memory=20)
    container = task.containers[0]
    first = await bench.runtime.wait(container)

    await run_again(bench, task)
    second = await bench.runtime.wait(container)

    assert (first.code, first.oom_killed) == (137, True)
    assert (second.code, second.oom_killed) == (137, False)


@pytest.mark.parametrize("terminal", [False, True], ids=["streams", "terminal"])
async def test_the_logger_of_a_run_ends_before_the_next_begins(
    bench: Bench,
    terminal: bool,
) -> None:
    logger = bench.directory / "slow-logger"
    logger.write_text(SLOW_LOGGER)
    logger.chmod(0o755)
    task = bench.plan({"command": ["sh", "-c", "echo output"], "pseudoTerminal": terminal})
    container = task.containers[0]
    await bench.prepare(task)
    await bench.runtime.create(task, container, bench.image(), bench.log_uri(container, logger))
    await bench.runtime.start(task, container)
    await bench.runtime.wait(container)

    await restart(bench, task, logger)
    await bench.runtime.start(task, container)

    finished = await bench.finish(task)
    run = ["logger begins", "output", "logger ends"]
    assert finished.output.splitlines() == [*run, *run]
