"""What a definition asks for around its programs, from RunTask to the end of the agent and back."""

import os
import signal

import pytest

from tests.fixtures.machine import wait_for
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, Stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]


async def test_process_is_as_asked_for_and_stays_so_while_agents_come_and_go(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(
        tool(
            "main",
            "cat /proc/sys/net/core/somaxconn; echo ready; while read line; do echo got $line;"
            " [ $line != end ] || exit 9; done; echo closed",
            interactive=True,
            linuxParameters={"initProcessEnabled": True},
            systemControls=[{"namespace": "net.core.somaxconn", "value": "77"}],
        ),
        tool(
            "side",
            "while :; do for file in /proc/[0-9]*/cmdline; do case $(cat $file 2>/dev/null) in"
            " /dev/init--*) echo sees main; exec sleep 1000;; esac; done; sleep 0.1; done",
            essential=False,
        ),
        pidMode="task",
    )
    await stack.wait_for(arn, "RUNNING")
    await stack.wait_for_log(arn, "main: ready")
    await stack.wait_for_log(arn, "side: sees main")

    stack.agent.end(signal.SIGKILL)
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("agent is ready"), "the next agent", DEADLINE_S)
    fifo = stack.root / "agent" / "tasks" / arn.rpartition("/")[2] / "stdin" / "main"
    for text in ("one", "end"):
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        os.write(descriptor, f"{text}\n".encode())
        os.close(descriptor)
        await stack.wait_for_log(arn, f"main: got {text}")
    task = await stack.wait_for(arn, "STOPPED")

    exits = {one["name"]: one.get("exitCode") for one in task["containers"]}
    assert exits["main"] == 9
    assert "main: 77" in await stack.logs(arn)
    assert stack.leftovers(arn) == []
