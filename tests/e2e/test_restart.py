"""Containers outlive the agent; the next one takes them over, with exit codes and logs."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fixtures.machine import wait_for
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, Stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SENT = "02AAFEA9:0050 02"
"""A connection to port 80 of 169.254.170.2 that waits for an answer. Source: proc(5)."""


def process_of(stack: Stack, arn: str) -> int:
    """Return the pid of the task's only container."""
    task_id = arn.rpartition("/")[2]
    rows = [line.split() for line in stack.ctr("tasks", "ls").splitlines()]
    return next(int(row[1]) for row in rows if row[0].startswith(task_id))


by_signal = pytest.mark.parametrize(
    "how",
    [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGKILL, id="SIGKILL")],
)


@by_signal
async def test_container_runs_on_while_agents_come_and_go(
    stack: Stack, registry: FakeRegistry, how: signal.Signals
) -> None:
    arn = stack.run(
        tool(
            "main",
            "echo before; while [ ! -e /tmp/end ]; do sleep 0.1; done; echo after; exit 9",
            linuxParameters={"tmpfs": [{"containerPath": "/tmp", "size": 1}]},
        )
    )
    await stack.wait_for(arn, "RUNNING")
    pid = process_of(stack, arn)

    stack.agent.end(how)
    assert process_of(stack, arn) == pid
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("agent is ready"), "the next agent", DEADLINE_S)
    assert process_of(stack, arn) == pid
    Path(f"/proc/{pid}/root/tmp/end").touch()
    task = await stack.wait_for(arn, "STOPPED")

    assert task["containers"][0]["exitCode"] == 9
    assert await stack.logs(arn) == ["main: before", "main: after"]
    assert stack.leftovers(arn) == []


async def test_exit_while_no_agent_ran_is_reported_by_the_next(
    stack: Stack, registry: FakeRegistry
) -> None:
    script = "trap 'echo bye; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    arn = stack.run(tool("main", script))
    await stack.wait_for(arn, "RUNNING")
    await stack.wait_for_log(arn, "ready")
    pid = process_of(stack, arn)

    stack.agent.end(signal.SIGKILL)
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: "STOPPED" in stack.ctr("tasks", "ls"), "the exit", DEADLINE_S)
    stack.agent.start()
    task = await stack.wait_for(arn, "STOPPED")

    assert task["containers"][0]["exitCode"] == 5
    assert task["stopCode"] == "EssentialContainerExited"
    assert await stack.logs(arn) == ["main: ready", "main: bye"]
    assert stack.leftovers(arn) == []


async def test_stop_while_no_agent_ran_is_carried_out_by_the_next(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(tool("main", "exec sleep 1000", stopTimeout=2))
    await stack.wait_for(arn, "RUNNING")

    stack.agent.end(signal.SIGKILL)
    stack.stop(arn, "not needed")
    stack.agent.start()
    task = await stack.wait_for(arn, "STOPPED")

    assert task["stoppedReason"] == "not needed"
    assert stack.leftovers(arn) == []


@by_signal
async def test_who_asks_for_metadata_while_no_agent_runs_is_answered_by_the_next(
    stack: Stack, registry: FakeRegistry, how: signal.Signals
) -> None:
    arn = stack.run(
        tool(
            "main",
            "wget -q -O /dev/null $ECS_CONTAINER_METADATA_URI_V4 && echo first;"
            "while [ ! -e /tmp/go ]; do sleep 0.1; done;"
            "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/task; echo; echo second; sleep 1000",
            linuxParameters={"tmpfs": [{"containerPath": "/tmp", "size": 1}]},
        )
    )
    await stack.wait_for_log(arn, "first")
    await stack.wait_for(arn, "RUNNING")
    pid = process_of(stack, arn)

    stack.agent.end(how)
    Path(f"/proc/{pid}/root/tmp/go").touch()
    connections = Path(f"/proc/{pid}/net/tcp")
    wait_for(lambda: SENT in connections.read_text(), "the question", DEADLINE_S)
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("agent is ready"), "the next agent", DEADLINE_S)
    lines = await stack.wait_for_log(arn, "second")

    assert any('"KnownStatus":"RUNNING"' in line for line in lines)
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")


async def test_restart_of_containerd_ends_nothing(stack: Stack, registry: FakeRegistry) -> None:
    arn = stack.run(
        tool(
            "main",
            "while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 4",
            linuxParameters={"tmpfs": [{"containerPath": "/tmp", "size": 1}]},
        )
    )
    await stack.wait_for(arn, "RUNNING")
    pid = process_of(stack, arn)

    stack.containerd.stop()
    stack.containerd.start()
    assert stack.describe(arn)["lastStatus"] == "RUNNING"
    Path(f"/proc/{pid}/root/tmp/end").touch()
    task = await stack.wait_for(arn, "STOPPED")

    assert task["containers"][0]["exitCode"] == 4
    assert stack.leftovers(arn) == []


async def test_agent_waits_for_a_containerd_that_is_not_there_and_goes_on_when_it_comes(
    stack: Stack, registry: FakeRegistry
) -> None:
    stack.containerd.stop()
    arn = stack.run(tool("main", "echo here; exit 3"))
    wait_for(
        lambda: stack.agent.wrote("containerd doesn't answer at"), "the agent's log", DEADLINE_S
    )
    assert stack.describe(arn)["lastStatus"] in ("PROVISIONING", "PENDING")

    stack.containerd.start()
    task = await stack.wait_for(arn, "STOPPED")

    assert task["containers"][0]["exitCode"] == 3
    assert stack.leftovers(arn) == []


async def test_task_whose_record_can_not_be_read_runs_on_until_it_is_stopped(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(tool("main", "exec sleep 1000"))
    await stack.wait_for(arn, "RUNNING")
    pid = process_of(stack, arn)
    record = stack.root / "agent/records" / f"{arn.rpartition('/')[2]}.json"

    stack.agent.end(signal.SIGKILL)
    record.write_text('{"version": 1')
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("connected to"), "the next agent", DEADLINE_S)
    assert stack.agent.wrote(f"can't be read: {record}")
    assert process_of(stack, arn) == pid
    assert stack.describe(arn)["lastStatus"] == "RUNNING"

    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    assert stack.leftovers(arn) == []


async def test_stop_timeout_goes_on_while_agents_come_and_go(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(tool("main", "trap '' TERM; echo trapped; exec sleep 1000", stopTimeout=9))
    await stack.wait_for_log(arn, "trapped")
    await stack.wait_for(arn, "RUNNING")
    pid = process_of(stack, arn)
    record = stack.root / "agent/records" / f"{arn.rpartition('/')[2]}.json"

    stack.stop(arn)
    wait_for(lambda: '"stop_began_s":null' not in record.read_text(), "the stop", DEADLINE_S)
    began_s = time.monotonic()
    for how in (signal.SIGTERM, signal.SIGKILL):
        wait_for(lambda: stack.agent.wrote("agent is ready"), "an agent", DEADLINE_S)
        stack.agent.end(how)
        assert Path(f"/proc/{pid}").exists()
        stack.agent.start()
    wait_for(lambda: stack.agent.wrote("agent is ready"), "an agent", DEADLINE_S)
    ready_s = time.monotonic() - began_s
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the end", DEADLINE_S)
    took_s = time.monotonic() - began_s
    task = await stack.wait_for(arn, "STOPPED")

    assert 8 < took_s < max(9, ready_s + 1) + 2
    assert task["containers"][0]["exitCode"] == 137
    assert stack.leftovers(arn) == []
