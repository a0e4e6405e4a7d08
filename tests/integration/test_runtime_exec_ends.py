"""What is left of a program that was run inside a container: at its deadline, after a crash."""

import asyncio
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError, NotFoundError, UnavailableError
from fargate_agent.containerd.processes import Processes
from fargate_agent.errors import CannotExecError, ContainerRuntimeError, ExecTimeoutError
from fargate_agent.plan import TaskPlan
from fargate_agent.runtime import exec as execs
from fargate_agent.runtime import started
from fargate_agent.runtime.runc import RuncRuntime
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.execs import DEADLINE_S, IDLE, Output, run_inside, runs_of
from tests.fixtures.machine import find_groups
from tests.fixtures.runtime import Bench, make_runtime

pytestmark = pytest.mark.root

SLEEP = "sleep 1000"
DETACHED = f"(busybox setsid sh -c '{SLEEP} & {SLEEP}; exit' >/dev/null 2>&1 &)"
"""Leaves its parent, its session and its terminal."""

STUBBORN = {
    "hangs": SLEEP,
    "ignores signals": f"trap '' TERM INT HUP; while :; do {SLEEP}; done",
    "has children": f"{SLEEP} & {SLEEP} & wait",
    "has left its parent": f"{DETACHED}; {SLEEP}",
    "has changed its environment": f"busybox env -i {SLEEP} & {SLEEP}",
    "has taken off its mark": f"exec busybox env -i sh -c '{SLEEP} & {SLEEP}; exit'",
    "is stopped": f"({SLEEP} &); (busybox env -i {SLEEP} &); kill -STOP $$",
    "floods": "busybox yes",
    "is out of reach": "exec >&- 2>&-; while :; do :; done",
    "forks all it can": f"f() {{ f & f; }}; sleep 1; f 2>/dev/null & exec {SLEEP}",
    "breeds strangers": f"while sleep 0.005; do busybox env -i busybox setsid {SLEEP} & done",
    "runs away": f"echo 'sh /run & exit' >/run; for _ in 1 2 3 4; do (sh /run &); done; {SLEEP}",
}

PREDECESSOR = """
import asyncio, pickle, sys
from pathlib import Path
from fargate_agent.containerd.client import Containerd
from fargate_agent.drivers import ExecIo
from tests.fixtures.runtime import make_runtime

async def main():
    address, namespace, plan, script = sys.argv[1:]
    container = pickle.loads(Path(plan).read_bytes())
    def say(data):
        print("begun", flush=True)
        sys.stdin.read()
    io = ExecIo(on_output=say, on_error=say)
    async with Containerd(Path(address), namespace) as containerd:
        runtime = make_runtime(containerd, [])
        await runtime.exec(container, "check", ("sh", "-c", script), io, None)

asyncio.run(main())
"""
"""An agent that runs a program, says that it has begun, and does nothing more."""


@pytest.fixture
async def successor(bench: Bench) -> AsyncIterator[RuncRuntime]:
    """The runtime of an agent that starts later, with a connection of its own."""
    async with Containerd(bench.containerd.address, bench.containerd.namespace) as containerd:
        yield make_runtime(containerd, [])


async def intruders(bench: Bench, task: TaskPlan) -> dict[int, str]:
    """Return the processes of a container that aren't of its first one's session, and run."""
    container = task.containers[0]
    first = (await bench.containerd.processes.get(container.id)).pid
    found = dict[int, str]()
    for group in find_groups(container.cgroup):
        for pid in map(int, (group / "cgroup.procs").read_text().split()):
            with suppress(FileNotFoundError, ProcessLookupError):
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
                state, _, _, session, *_ = rest.split()
                if int(session) != first and state not in {"Z", "X"}:
                    found[pid] = name
    return found


async def until_intruders(bench: Bench, task: TaskPlan, count: int) -> dict[int, str]:
    """Return them when there are that many."""
    async with asyncio.timeout(DEADLINE_S):
        while len(found := await intruders(bench, task)) < count:
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize("script", STUBBORN.values(), ids=STUBBORN.keys())
async def test_nothing_is_left_at_the_deadline(bench: Bench, script: str) -> None:
    task = await bench.begin(IDLE)

    with pytest.raises(ExecTimeoutError) as caught:
        await run_inside(bench, task, script, deadline_s=1.5)

    assert caught.value.reason == "ExecTimeoutError: timed out after waiting 1.5s"
    assert await intruders(bench, task) == {}
    assert runs_of(task.containers[0]) == []
    assert (await run_inside(bench, task, "exit 5"))[0] == 5


def test_program_that_is_just_being_executed_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until the kernel has loaded it, it has no environment and so no mark."""
    script = f"read line; exec env {started.MARK_VARIABLE}=late sleep 1000"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as late:
        assert late.stdin is not None
        line = late.stdin

        def go_on(_: int) -> bool:
            if late.poll() is None:
                line.write(b"\n")
                line.flush()
            return late.returncode is None

        assert not started._is_executing(late.pid)
        monkeypatch.setattr(started, "_is_executing", go_on)
        started.kill_started(lambda: [late.pid], ["late"], None, DEADLINE_S)

        assert late.wait(DEADLINE_S) == -signal.SIGKILL


async def test_what_can_t_be_killed_has_passed_its_deadline_and_stands_in_the_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for a disk."""
    task = await bench.begin(IDLE)

    def refuse(*_: object) -> None:
        raise TimeoutError("1 processes are left")

    with monkeypatch.context() as change:
        change.setattr(execs, "kill_started", refuse)
        with pytest.raises(ExecTimeoutError):
            await run_inside(bench, task, SLEEP, deadline_s=1)
        with pytest.raises(CannotExecError) as caught:
            await run_inside(bench, task, "exit 5")

    assert caught.value.detail == "what was run before does not end: 1 processes are left"
    assert (await run_inside(bench, task, "exit 5"))[0] == 5
    assert await intruders(bench, task) == {}


async def test_nothing_is_left_when_the_caller_is_cancelled(bench: Bench) -> None:
    task = await bench.begin(IDLE)
    output = Output()
    argv = ("sh", "-c", f"{DETACHED}; echo begun; {SLEEP}")
    running = asyncio.create_task(
        bench.runtime.exec(task.containers[0], "check", argv, output.io(), None)
    )
    await output.until(b"begun")

    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    assert await intruders(bench, task) == {}
    assert runs_of(task.containers[0]) == []


async def test_nothing_is_left_of_a_program_that_was_just_being_started(bench: Bench) -> None:
    task = await bench.begin(IDLE)
    container = task.containers[0]

    for delay_s in (0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04):
        async with asyncio.TaskGroup() as jobs:
            running = jobs.create_task(run_inside(bench, task, SLEEP))
            while not runs_of(container):
                await asyncio.sleep(0)
            await asyncio.sleep(delay_s)
            running.cancel()

        assert await intruders(bench, task) == {}
        assert runs_of(container) == []
        with pytest.raises(NotFoundError):
            await bench.containerd.processes.get(container.id, exec_id="check")


async def test_a_cancellation_waits_for_no_containerd(
    bench: Bench, private_containerd: PrivateContainerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execs, "LET_GO_DEADLINE_S", 1.0)
    task = await bench.begin(IDLE)
    output = Output()
    argv = ("sh", "-c", f"{DETACHED}; echo begun; {SLEEP}")
    running = asyncio.create_task(
        bench.runtime.exec(task.containers[0], "check", argv, output.io(), None)
    )
    await output.until(b"begun")
    await asyncio.to_thread(private_containerd.stop)

    running.cancel()
    async with asyncio.timeout(20):  # calls of containerd have 30 s
        await asyncio.wait([running])
    await asyncio.to_thread(private_containerd.start)
    await bench.containerd.wait_until_served()
    await bench.runtime.end_exec(task.containers[0], "check")

    assert running.cancelled()
    assert await intruders(bench, task) == {}
    assert runs_of(task.containers[0]) == []


async def test_a_start_that_containerd_cut_off_does_not_end_the_container(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await bench.begin(IDLE)
    first = (await bench.containerd.processes.get(task.containers[0].id)).pid
    start = Processes.start
    faults = [UnavailableError("the connection is gone")]

    async def start_cut_off(processes: Processes, id_: str, **options: Any) -> int:
        if not faults:
            return await start(processes, id_, **options)
        with pytest.raises(ContainerdError):  # as runC has it whom the shim kills
            await start(processes, id_, **options)
        Path(f"/proc/{first}/root/false").symlink_to("/bin/busybox")
        raise faults.pop()

    monkeypatch.setattr(Processes, "start", start_cut_off)
    argv, io = ("/false",), Output().io()

    code = await bench.runtime.exec(task.containers[0], "check", argv, io, DEADLINE_S)

    assert code == 1
    assert (await run_inside(bench, task, "exit 5"))[0] == 5
    assert (await bench.containerd.processes.get(task.containers[0].id)).pid == first


async def test_what_a_program_leaves_running_lives_on_when_it_ends(bench: Bench) -> None:
    task = await bench.begin(IDLE)

    code, output = await run_inside(bench, task, f"{SLEEP} & echo last; exit 6")

    assert (code, output.stdout) == (6, b"last\n")
    assert len(await intruders(bench, task)) == 1
    assert runs_of(task.containers[0]) == []


async def test_nothing_that_lives_on_is_killed_for_a_later_program(bench: Bench) -> None:
    task = await bench.begin(IDLE)
    await run_inside(bench, task, f"{DETACHED}; exit 0")
    daemons = await until_intruders(bench, task, 3)

    with pytest.raises(ExecTimeoutError):
        await run_inside(bench, task, SLEEP, deadline_s=1)

    assert (await intruders(bench, task)).keys() == daemons.keys()


@pytest.fixture
async def orphaned(bench: Bench, request: pytest.FixtureRequest) -> TaskPlan:
    """A task in which an agent that was killed has left a program."""
    task = await bench.begin(IDLE)
    plan = bench.directory / "plan"
    plan.write_bytes(pickle.dumps(task.containers[0]))
    address, namespace = str(bench.containerd.address), bench.containerd.namespace
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PREDECESSOR, address, namespace, str(plan), request.param),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert agent.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert await agent.stdout.readline() == b"begun\n"
    finally:
        agent.kill()
        await agent.wait()
    return task


ORPHANS = pytest.mark.parametrize(
    "orphaned",
    [f"{DETACHED}; echo 1; {SLEEP}", f"{DETACHED}; echo 1; exec busybox yes"],
    ids=["hangs", "floods"],
    indirect=True,
)


@ORPHANS
async def test_the_next_agent_ends_what_its_predecessor_left(
    bench: Bench, successor: RuncRuntime, orphaned: TaskPlan
) -> None:
    container = orphaned.containers[0]
    await until_intruders(bench, orphaned, 4)

    await successor.end_exec(container, "check")

    assert await intruders(bench, orphaned) == {}
    assert runs_of(container) == []
    with pytest.raises(NotFoundError):
        await bench.containerd.processes.get(container.id, exec_id="check")


@ORPHANS
async def test_the_next_agent_runs_a_program_where_its_predecessor_left_one(
    bench: Bench, successor: RuncRuntime, orphaned: TaskPlan
) -> None:
    output = Output()
    argv = ("sh", "-c", "echo next; exit 4")

    code = await successor.exec(orphaned.containers[0], "check", argv, output.io(), DEADLINE_S)

    assert (code, output.stdout) == (4, b"next\n")
    assert await intruders(bench, orphaned) == {}
    assert runs_of(orphaned.containers[0]) == []


@pytest.mark.parametrize("started", [False, True], ids=["never started", "without its FIFOs"])
async def test_an_id_that_is_taken_is_freed(bench: Bench, started: bool) -> None:
    task = await bench.begin(IDLE)
    id_ = task.containers[0].id
    process = {"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": {}}
    await bench.containerd.execs.add(id_, "check", json.dumps(process).encode())
    if started:
        await bench.containerd.processes.start(id_, exec_id="check")

    code, _ = await run_inside(bench, task, "exit 4")

    assert code == 4
    assert await intruders(bench, task) == {}


async def test_a_task_is_taken_away_with_what_runs_inside(bench: Bench) -> None:
    task = await bench.begin(IDLE)
    output = Output()
    argv = ("sh", "-c", f"echo begun; {SLEEP}")
    running = asyncio.create_task(
        bench.runtime.exec(task.containers[0], "check", argv, output.io(), None)
    )
    await output.until(b"begun")

    await bench.runtime.stop(task.containers[0])
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.wait([running])
    await bench.release(task)

    error = running.exception()
    assert isinstance(error, ContainerRuntimeError) if error else running.result() == 137
    assert await bench.traces(task) == []
