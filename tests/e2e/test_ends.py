"""How containers end, as their owner reads it: exit codes, reasons, and the last line of each.

Source: ECS developer guide, stopped task error messages; amazon-ecs-agent, agent/engine.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fixtures.machine import arguments, shims
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, Stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

EXITED: Final = ("EssentialContainerExited", "Essential container in task exited")
IDLE: Final = "echo ready; while :; do sleep 0.1; done"
EATER: Final = 'x=x; while :; do x="$x$x"; done'

ROWS: Final[dict[str, tuple[dict[str, Any], tuple[str, str], int | None, str | None]]] = {
    "well": (tool("main", "exit 0"), EXITED, 0, None),
    "badly": (tool("main", "exit 7"), EXITED, 7, None),
    "unknown to its caller": (tool("main", "exit 255"), EXITED, 255, None),
    "by a signal, as its shell tells": (
        tool("main", "sh -c 'kill -SEGV $$'; exit $?"),
        EXITED,
        139,
        None,
    ),
    "no memory": (
        tool("main", EATER, memory=32),
        EXITED,
        137,
        "OutOfMemoryError: container killed due to memory usage",
    ),
    "no memory for a child": (
        tool("main", f"sh -c '{EATER}'; exit 4", memory=32),
        EXITED,
        4,
        "OutOfMemoryError: container killed due to memory usage",
    ),
    "no memory for a child, and yet well": (
        tool("main", f"sh -c '{EATER}'; exit 0", memory=32),
        EXITED,
        0,
        None,
    ),
    "no program": (
        {**tool("main", ""), "command": ["/bin/nothing"]},
        ("TaskFailedToStart", "CannotStartContainerError: "),
        None,
        "CannotStartContainerError: ",
    ),
    "no user": (
        tool("main", "exit 0", user="nobody-here"),
        ("TaskFailedToStart", "CannotCreateContainerError: unable to find user nobody-here"),
        None,
        "CannotCreateContainerError: unable to find user nobody-here",
    ),
    "no image": (
        {**tool("main", "exit 0"), "image": "127.0.0.1:9/nothing:1"},
        ("TaskFailedToStart", "CannotPullContainerError: "),
        None,
        "CannotPullContainerError: ",
    ),
}
"""A container, the task's stop code and reason, the container's exit code and reason. Reasons are
told from their beginning."""


@pytest.mark.timeout(240)
async def test_exit_codes_and_reasons_are_those_of_ecs(
    stack: Stack, registry: FakeRegistry
) -> None:
    arns = {name: stack.run(row[0]) for name, row in ROWS.items()}

    found = {}
    for name, arn in arns.items():
        found[name] = render(await stack.wait_for(arn, "STOPPED"), ROWS[name][1][1], ROWS[name][3])

    assert found == {name: row[1:] for name, row in ROWS.items()}


def render(
    task: dict[str, Any], task_reason: str, reason: str | None
) -> tuple[tuple[str, str], int | None, str | None]:
    """Return what a row says of a task that has stopped, reasons cut to what is expected."""
    (container,) = task["containers"]
    said = container.get("reason")
    return (
        (task["stopCode"], task["stoppedReason"][: len(task_reason)]),
        container.get("exitCode"),
        said if said is None or reason is None else said[: len(reason)],
    )


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(f"trap 'exit 6' TERM; {IDLE}", 6, id="by itself"),
        pytest.param(f"trap '' TERM; {IDLE}", 137, id="killed"),
    ],
)
async def test_exit_code_of_a_task_that_was_stopped(
    stack: Stack, registry: FakeRegistry, script: str, code: int
) -> None:
    arn = stack.run(tool("main", script))
    await stack.wait_for_log(arn, "ready")
    await stack.wait_for(arn, "RUNNING")

    stack.stop(arn, "not needed")
    task = await stack.wait_for(arn, "STOPPED")

    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "not needed")
    assert task["containers"][0]["exitCode"] == code


async def test_container_whose_shim_was_killed_has_no_exit_code_and_runs_no_more(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(tool("main", f"sleep 1000 & {IDLE}"))
    await stack.wait_for_log(arn, "ready")
    task_id = arn.rpartition("/")[2]
    (pid,) = (pid for pid, argv in shims().items() if any(task_id in one for one in argv))
    processes = [int(row.split()[0]) for row in stack.ctr("tasks", "ps", container_of(stack, arn))
                 .splitlines()[1:]]  # fmt: skip
    assert len(processes) >= 2

    os.kill(pid, signal.SIGKILL)
    task = await stack.wait_for(arn, "STOPPED")

    assert [one for one in processes if runs_in(one, task_id)] == []
    (container,) = task["containers"]
    assert "exitCode" not in container
    assert container["reason"] == (
        "ContainerRuntimeError: nobody knows how the container ended: its shim was killed"
    )
    assert stack.leftovers(arn) == []


def container_of(stack: Stack, arn: str) -> str:
    task_id = arn.rpartition("/")[2]
    return next(id_ for id_ in stack.ctr("tasks", "ls", "-q").split() if id_.startswith(task_id))


def runs_in(pid: int, task_id: str) -> bool:
    """Whether a process is there that is one of the task."""
    try:
        return task_id in Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def chain(number: int) -> list[dict[str, Any]]:
    """Return five containers that live as long as a line takes; the last one waits for the rest."""
    names = [f"c{number}-{place}" for place in range(5)]
    first = [tool(n, f"echo end of {n}; exit {i + 1}", essential=False)
             for i, n in enumerate(names[:-1])]  # fmt: skip
    depends_on = [{"containerName": name, "condition": "COMPLETE"} for name in names[:-1]]
    last = tool(names[-1], f"echo end of {names[-1]}; exit 5", dependsOn=depends_on)
    return [*first, last]


@pytest.mark.timeout(300)
async def test_no_exit_and_no_line_is_lost_of_fifty_short_containers_and_three_agents(
    stack: Stack, registry: FakeRegistry
) -> None:
    arns = [stack.run(*chain(number), cpu="256", memory="512") for number in range(10)]
    for made in (4, 12):
        async with asyncio.timeout(DEADLINE_S):
            while count_made(stack) < made:
                await asyncio.sleep(0.02)
        stack.agent.end(signal.SIGKILL)
        stack.agent.start()

    tasks = []
    for arn in arns:
        async with asyncio.timeout(DEADLINE_S * 3):
            while (task := stack.describe(arn))["lastStatus"] != "STOPPED":
                await asyncio.sleep(0.1)
        tasks.append(task)

    codes = {c["name"]: c.get("exitCode") for task in tasks for c in task["containers"]}
    assert codes == {f"c{n}-{place}": place + 1 for n in range(10) for place in range(5)}
    lines = [line for arn in arns for line in await stack.logs(arn)]
    assert sorted(lines) == sorted(f"{name}: end of {name}" for name in codes)
    assert [one for arn in arns for one in stack.leftovers(arn)] == []


def count_made(stack: Stack) -> int:
    """Return how many containers have been made so far, by their logs."""
    return len(list((stack.root / "agent" / "logs").glob("*/*.log")))


async def test_output_goes_on_when_a_logger_is_killed_and_its_second_one_is_told_as_a_loss(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(tool("main", "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done"))
    await stack.wait_for(arn, "RUNNING")
    await stack.wait_for_log(arn, "tick 2")

    async with asyncio.timeout(DEADLINE_S):
        while not holds_pipes_of_a_logger(stack, arn):
            await asyncio.sleep(0.05)
    first = await kill_logger(arn, but=0)
    told = len(await stack.logs(arn))
    lines = await stack.wait_for_log(arn, f"tick {told + 20}")

    assert lines == [f"main: tick {i + 1}" for i in range(len(lines))]
    assert stack.agent.wrote("another one takes its place")
    assert "reason" not in stack.describe(arn)["containers"][0]

    await kill_logger(arn, but=first)
    async with asyncio.timeout(DEADLINE_S):
        while "reason" not in (container := stack.describe(arn)["containers"][0]):
            await asyncio.sleep(0.1)
    assert container["reason"] == (
        "ContainerRuntimeError: the logger 'json-file' has ended: output is lost from now on"
    )
    assert stack.describe(arn)["lastStatus"] == "RUNNING"
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    assert stack.leftovers(arn) == []


async def kill_logger(arn: str, but: int) -> int:
    """Kill the logger of a task, when it is another than `but`; return its process id."""
    task_id = arn.rpartition("/")[2]
    async with asyncio.timeout(DEADLINE_S):
        while not (found := find_loggers(task_id) - {but}):
            await asyncio.sleep(0.05)
    (pid,) = found
    os.kill(pid, signal.SIGKILL)
    return pid


def holds_pipes_of_a_logger(stack: Stack, arn: str) -> bool:
    held = read_links(stack.agent.pid) - {""}
    loggers = find_loggers(arn.rpartition("/")[2])
    return any({read_link(pid, "3"), read_link(pid, "4")} <= held for pid in loggers)


def read_links(pid: int) -> set[str]:
    return {read_link(pid, path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


def read_link(pid: int, descriptor: str) -> str:
    """Return what a process has open; an empty text if it has closed that."""
    try:
        return str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())
    except FileNotFoundError:
        return ""


def find_loggers(task_id: str) -> set[int]:
    """Return who runs the program of loggers, and nothing that starts one."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return {
        pid
        for pid in pids
        if (argv := arguments(pid))[0].endswith("/python3")
        and "-ISE" in argv
        and any(task_id in one for one in argv)
    }
