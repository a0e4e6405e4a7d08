"""`fargate run --follow` as a program: a real control plane, and agents that do as a test says."""

import asyncio
import json
import os
import pty
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.cli import FARGATE, Cli, LocalSocket, cli_for, definition, finish
from tests.fixtures.controlplane import ControlPlane

pytestmark = pytest.mark.one_store

IMAGE = "registry.local/app:1"
PULLS = [
    {
        "container": "app",
        "image": IMAGE,
        "fetchedBytes": fetched,
        "totalBytes": 4 << 20,
        "unpackedLayers": layers,
        "totalLayers": 2,
        "retry": retry,
        "done": layers == 2,
    }
    for fetched, layers, retry in (
        (0, 0, "try 2 of 5: i/o timeout"),
        (0, 0, "try 2 of 5: i/o timeout"),
        (1 << 20, 1, ""),
        (4 << 20, 2, ""),
    )
]
LINES = [
    {
        "container": "app",
        "stream": "stdout",
        "time": "2026-11-21T10:00:00.000000001Z",
        "log": "a\n",
    },
    {"container": "side", "stream": "stderr", "time": "2026-11-21T10:00:01.000000001Z", "log": "b"},
]


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalSocket]:
    async with LocalSocket(tmp_path / "agent.sock", pulls=PULLS, lines=LINES).serve() as socket:
        socket.ended.set()
        yield socket


@pytest.fixture
def cli(control_plane: ControlPlane, local: LocalSocket) -> Cli:
    return cli_for(control_plane, local.path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "task.json"
    path.write_text(json.dumps(definition()))
    return str(path)


async def end(agent: SimulatedAgent, task: dict[str, Any], **exit_codes: int) -> None:
    await agent.submit(
        task["arn"],
        "STOPPED",
        reason="Essential container in task exited",
        containers=[
            {"containerName": name, "status": "STOPPED", "exitCode": code}
            for name, code in exit_codes.items()
        ],
    )


async def stderr_until(process: asyncio.subprocess.Process, text: str) -> str:
    """Read what the program says until it has said that."""
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(20):
        while text not in said:
            line = await process.stderr.readline()
            assert line, said
            said += line.decode()
    return said


async def test_follow_shows_status_pulls_logs_and_end_and_exits_as_the_essential_container(
    cli: Cli, file: str, simulated_agent: SimulatedAgent, local: LocalSocket
) -> None:
    local.unknown_calls = 2
    process = await cli.start("run", "--follow", file)
    task = await simulated_agent.take()
    said = await stderr_until(process, "PROVISIONING")
    await simulated_agent.bring_up(task)
    said += await stderr_until(process, "RUNNING")
    await end(simulated_agent, task, side=1, app=42)

    outcome = await finish(process)

    said += outcome.err
    short = task["arn"].rpartition("/")[2][:12]
    assert outcome.code == 42
    assert outcome.out == "app | a\n"
    statuses = [line for line in said.splitlines() if line.startswith(f"task {short}: ")]
    assert statuses[0].endswith("PROVISIONING")
    assert statuses[-1].endswith("RUNNING")  # the last line says that it has stopped
    assert f"pulling {IMAGE}\n" in said
    assert said.count(f"{IMAGE}: try 2 of 5: i/o timeout\n") == 1
    assert f"pulled {IMAGE}: 4.0 MiB in " in said
    assert "side | b\n" in said
    assert "side: exit code 1\n" in said
    assert f"task {short} stopped: Essential container in task exited (Essential" in said


async def test_follow_of_a_task_that_fails_to_start_exits_1_with_the_reason(
    cli: Cli, file: str, simulated_agent: SimulatedAgent
) -> None:
    process = await cli.start("run", "--follow", file)
    task = await simulated_agent.take()
    reason = "CannotPullContainerError: pull image manifest has been retried 7 time(s): not found"
    await simulated_agent.submit(task["arn"], "STOPPED", reason=reason)

    outcome = await finish(process)

    assert outcome.code == 1
    assert f"stopped: {reason} (TaskFailedToStart)" in outcome.err
    assert "app: not run" in outcome.err
    assert outcome.err.count(reason) == 1


async def test_follow_is_json_lines(
    cli: Cli, file: str, simulated_agent: SimulatedAgent, local: LocalSocket
) -> None:
    process = await cli.start("run", "--follow", "--output", "json", file)
    task = await simulated_agent.take()
    await simulated_agent.bring_up(task)
    await end(simulated_agent, task, side=0, app=3)

    outcome = await finish(process)

    assert outcome.code == 3
    assert outcome.err == ""
    kinds = [line["type"] for line in outcome.lines]
    assert set(kinds) == {"status", "pull", "log", "end"}
    assert [line for line in outcome.lines if line["type"] == "pull"] == [
        {"type": "pull", **pull} for pull in PULLS
    ]
    last = outcome.lines[-1]
    assert (last["type"], last["exitCode"]) == ("end", 3)
    assert last["task"]["taskArn"] == task["arn"]


async def test_follow_without_the_agent_s_socket_follows_the_status(
    control_plane: ControlPlane, file: str, simulated_agent: SimulatedAgent, tmp_path: Path
) -> None:
    process = await cli_for(control_plane, tmp_path / "none.sock").start("run", "-f", file)
    task = await simulated_agent.take()
    await simulated_agent.bring_up(task)
    await end(simulated_agent, task, side=0, app=5)

    outcome = await finish(process)

    assert outcome.code == 5
    assert f"no pulls and logs are shown: no agent answers at {tmp_path}/none.sock" in outcome.err


async def test_follow_asks_for_the_end_at_the_first_interrupt_and_waits_for_it(
    cli: Cli, file: str, simulated_agent: SimulatedAgent
) -> None:
    process = await cli.start("run", "--follow", file)
    task = await simulated_agent.take()
    await simulated_agent.bring_up(task)
    await stderr_until(process, "RUNNING")

    process.send_signal(signal.SIGINT)

    stop = await simulated_agent.take()
    assert stop["desiredStatus"] == "STOPPED"
    assert process.returncode is None
    await end(simulated_agent, task, side=143, app=143)
    outcome = await finish(process)
    assert outcome.code == 130
    assert "Interrupted in fargate run (UserInitiated)" in outcome.err


async def test_follow_leaves_at_the_second_interrupt_and_says_that_the_task_is_stopped(
    cli: Cli, file: str, simulated_agent: SimulatedAgent
) -> None:
    process = await cli.start("run", "--follow", file)
    task = await simulated_agent.take()
    await simulated_agent.bring_up(task)
    await stderr_until(process, "RUNNING")
    process.send_signal(signal.SIGINT)
    await simulated_agent.take()
    await asyncio.sleep(0.4)  # two signals closer together than a finger can count as one

    process.send_signal(signal.SIGINT)

    outcome = await finish(process)
    assert outcome.code == 130
    task_id = task["arn"].rpartition("/")[2]
    assert outcome.err.endswith(f"task {task_id} is being stopped; nothing waits for it here\n")


async def follow_on_terminal(cli: Cli, file: str, simulated_agent: SimulatedAgent) -> str:
    """Follow a task to its end on a narrow terminal, and return what that was sent."""
    ours, theirs = pty.openpty()
    cli.env.update(TERM="xterm", COLUMNS="60")
    process = await asyncio.create_subprocess_exec(
        FARGATE,
        "run",
        "--follow",
        file,
        env=cli.env,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    reader = asyncio.create_task(asyncio.to_thread(read_all, ours))
    task = await simulated_agent.take()
    await simulated_agent.bring_up(task)
    await end(simulated_agent, task, side=0, app=0)
    assert await process.wait() == 0
    return await reader


async def test_follow_draws_bars_with_bytes_and_rate_on_a_narrow_terminal(
    cli: Cli, file: str, simulated_agent: SimulatedAgent
) -> None:
    screen = await follow_on_terminal(cli, file, simulated_agent)

    assert "4.0 MiB/4.0 MiB" in screen
    assert "iB/s" in screen
    assert "━" in screen
    assert "\x1b[33mapp | \x1b[0ma" in screen


async def test_follow_shows_no_bytes_of_an_image_that_is_here(
    cli: Cli, file: str, simulated_agent: SimulatedAgent, local: LocalSocket
) -> None:
    nothing = {"fetchedBytes": 0, "totalBytes": 0}
    local.pulls = [{**pull, **nothing} for pull in PULLS]

    screen = await follow_on_terminal(cli, file, simulated_agent)

    assert "is here already" in screen
    assert "0/0" not in screen
    assert " B" not in screen


def read_all(descriptor: int) -> str:
    """What a terminal is sent until nobody has it open any more."""
    chunks = []
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(descriptor)
    return b"".join(chunks).decode()
