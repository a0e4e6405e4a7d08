"""Programs that are run inside containers: what they are given, and what they give back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fargate_agent.containerd.errors import NotFoundError
from fargate_agent.drivers import TerminalSize
from fargate_agent.errors import CannotExecError, ContainerRuntimeError
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.execs import DEADLINE_S, IDLE, Output, run_inside, runs_of
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

EAT = "dd if=/dev/zero of=/dev/null bs={mib}M count=1"


async def test_the_exit_code_and_both_streams_come_back(bench: Bench) -> None:
    task = await bench.begin(IDLE)

    code, output = await run_inside(bench, task, "echo one; echo two >&2; exit 7")

    assert (code, output.stdout, output.stderr) == (7, b"one\n", b"two\n")
    assert runs_of(task.containers[0]) == []
    with pytest.raises(NotFoundError):
        await bench.containerd.processes.get(task.containers[0].id, exec_id="check")


async def test_a_signal_is_in_the_exit_code(bench: Bench) -> None:
    task = await bench.begin(IDLE)

    code, _ = await run_inside(bench, task, "kill -9 $$")

    assert code == 137


async def test_a_program_is_as_the_container_is(bench: Bench) -> None:
    task = await bench.begin(
        IDLE,
        user="web",
        environment={"COLOUR": "red"},
        workingDirectory="/tmp",
        # a lower soft limit may be raised: runC sets both when its child has begun, or just before,
        # and a program in Go begins by raising the one to the other. Source: Go 1.19, os/rlimit.go
        ulimits=[{"name": "nofile", "softLimit": 400, "hardLimit": 400}],
    )
    await bench.wait_for_output(task, "ready")  # until then its first process is runC
    _, output = await run_inside(bench, task, "id; echo $COLOUR $PWD; ulimit -n; ulimit -Hn")
    _, status = await run_inside(bench, task, "cat /proc/self/status /proc/1/status")

    assert output.text.splitlines() == [
        "uid=1000(web) gid=1001(web) groups=1001(web),1002(logs)",
        "red /tmp",
        "400",
        "400",
    ]
    own, first = status.text.split("Name:")[1:]
    assert _restrictions(own) == _restrictions(first)


def _restrictions(status: str) -> list[str]:
    names = ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp:", "Cap")
    return [line for line in status.splitlines() if line.startswith(names)]


async def test_nothing_is_read_from_a_stdin_that_is_not_given(bench: Bench) -> None:
    task = await bench.begin(IDLE)

    code, output = await run_inside(bench, task, "cat; echo end")

    assert (code, output.stdout) == (0, b"end\n")


async def test_stdin_is_fed_as_fast_as_it_is_read_and_ends(bench: Bench) -> None:
    task = await bench.begin(IDLE)
    block = bytes(range(256)) * 256
    taken: list[int] = []

    async def blocks() -> AsyncIterator[bytes]:
        for number in range(40):
            taken.append(number)
            yield block

    output = Output()
    script = "until [ -e /go ]; do sleep 0.05; done; cat"
    running = asyncio.create_task(
        bench.runtime.exec(
            task.containers[0], "cat", ("sh", "-c", script), output.io(blocks()), DEADLINE_S
        )
    )
    async with asyncio.timeout(DEADLINE_S):
        while len(taken) < 2:
            await asyncio.sleep(0.01)
        code, _ = await run_inside(bench, task, "sleep 0.2; ls -d /tmp")
        taken_before = len(taken)
        await run_inside(bench, task, "echo >/go")

        assert (code, await running) == (0, 0)
    assert taken_before < 40
    assert output.stdout == block * 40


async def test_a_program_that_reads_nothing_ends_all_the_same(bench: Bench) -> None:
    task = await bench.begin(IDLE)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"y\n" * 50_000

    output = Output()
    code = await bench.runtime.exec(
        task.containers[0], "true", ("sh", "-c", "exit 4"), output.io(endless()), DEADLINE_S
    )

    assert code == 4


async def test_a_terminal_has_the_sizes_that_it_is_given(bench: Bench) -> None:
    task = await bench.begin(IDLE)
    output = Output()

    async def sizes() -> AsyncIterator[TerminalSize]:
        yield TerminalSize(columns=100, rows=30)
        await output.until(b"30 100")
        yield TerminalSize(columns=120, rows=40)

    async def keys() -> AsyncIterator[bytes]:
        await output.until(b"40 120")
        yield b"exit 5\n"
        await asyncio.get_running_loop().create_future()

    watch = (
        "while ! busybox stty size | busybox grep -q 30; do sleep 0.05; done; busybox stty size;"
        "while ! busybox stty size | busybox grep -q 40; do sleep 0.05; done; busybox stty size;"
        "echo $TERM; exec sh"
    )
    async with asyncio.timeout(DEADLINE_S):
        code = await bench.runtime.exec(
            task.containers[0], "shell", ("sh", "-c", watch), output.io(keys(), sizes()), None
        )

    assert code == 5
    assert b"30 100\r\n" in output.stdout
    assert b"xterm\r\n" in output.stdout
    assert output.stderr == b""


async def test_a_terminal_hangs_up_when_its_stdin_ends(bench: Bench) -> None:
    task = await bench.begin(IDLE)
    output = Output()

    async def sizes() -> AsyncIterator[TerminalSize]:
        yield TerminalSize(columns=80, rows=24)

    async def keys() -> AsyncIterator[bytes]:
        yield b"echo $((40 + 2))\n"
        await output.until(b"42")

    code = await bench.runtime.exec(
        task.containers[0], "shell", ("sh",), output.io(keys(), sizes()), DEADLINE_S
    )

    assert code == 129


async def test_a_flood_is_read_to_its_end(bench: Bench) -> None:
    task = await bench.begin(IDLE)

    code, output = await run_inside(
        bench, task, "dd if=/dev/zero bs=1M count=20 2>/dev/null; echo end"
    )

    assert code == 0
    assert len(output.stdout) == (20 << 20) + 4
    assert output.stdout.endswith(b"\0end\n")


async def test_a_program_that_is_not_there_is_named(bench: Bench) -> None:
    task = await bench.begin(IDLE)
    container = task.containers[0]

    with pytest.raises(CannotExecError) as caught:
        await bench.runtime.exec(container, "check", ("nonesuch",), Output().io(), DEADLINE_S)

    assert 'exec: "nonesuch": executable file not found' in caught.value.reason
    assert str(bench.directory) not in caught.value.reason
    assert runs_of(container) == []
    assert await run_inside(bench, task, "exit 3") == (3, Output())


async def test_nothing_is_run_in_a_container_that_has_ended(bench: Bench) -> None:
    task = await bench.begin("exit 0")
    await bench.runtime.wait(task.containers[0])

    with pytest.raises(ContainerRuntimeError, match="the container has ended"):
        await run_inside(bench, task, "exit 0")

    assert runs_of(task.containers[0]) == []


async def test_a_program_ends_with_its_container(bench: Bench) -> None:
    task = await bench.begin("until [ -e /go ]; do sleep 0.05; done")

    code, _ = await run_inside(bench, task, "echo >/go; sleep 1000")

    assert code == 137


async def test_a_program_counts_for_its_container(bench: Bench) -> None:
    # begins nothing: a shell whose fork is refused, as there is no memory, ends
    task = await bench.begin("echo ready; exec sleep 1000", memory=32)
    await bench.wait_for_output(task, "ready")

    _, groups = await run_inside(bench, task, "cat /proc/self/cgroup; echo; cat /proc/1/cgroup")
    code, _ = await run_inside(bench, task, f"exec {EAT.format(mib=200)}")

    own, first = groups.text.split("\n\n")
    assert own.strip() == first.strip()
    assert task.containers[0].id in own
    assert code == 137
    assert (await run_inside(bench, task, "exit 0"))[0] == 0


async def test_a_restart_of_containerd_is_not_noticed(
    bench: Bench, private_containerd: PrivateContainerd
) -> None:
    task = await bench.begin(IDLE)
    container = task.containers[0]
    output = Output()
    script = "echo begun; until [ -e /go ]; do sleep 0.05; done; echo done; exit 9"
    running = asyncio.create_task(
        bench.runtime.exec(container, "check", ("sh", "-c", script), output.io(), None)
    )
    async with asyncio.timeout(DEADLINE_S):
        await output.until(b"begun")
        await asyncio.to_thread(private_containerd.stop)
        await asyncio.to_thread(private_containerd.start)
        await bench.containerd.wait_until_served()
        await bench.runtime.exec(container, "go", ("sh", "-c", "echo >/go"), Output().io(), None)

        assert await running == 9
    assert output.stdout == b"begun\ndone\n"


@pytest.mark.parametrize("when", ["before it begins", "while it runs"])
async def test_a_deadline_that_passes_while_containerd_is_away_is_not_the_programs(
    bench: Bench, private_containerd: PrivateContainerd, when: str
) -> None:
    deadline_s = 3.0
    task = await bench.begin(IDLE)
    await run_inside(bench, task, "exit 0")
    output = Output()
    argv = ("sh", "-c", "echo begun; until [ -e /go ]; do sleep 0.05; done")
    if when == "before it begins":
        await asyncio.to_thread(private_containerd.stop)
    running = asyncio.create_task(
        bench.runtime.exec(task.containers[0], "check", argv, output.io(), deadline_s)
    )
    if when == "while it runs":
        await output.until(b"begun")
        await asyncio.to_thread(private_containerd.stop)

    await asyncio.sleep(deadline_s + 0.5)
    await asyncio.to_thread(private_containerd.start)

    with pytest.raises(ContainerRuntimeError, match="containerd was away"):
        await running
    assert runs_of(task.containers[0]) == []
