"""`fargate logs` with the real programs, whatever happens to the agent meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.test_restart import process_of
from tests.fixtures.cli import Cli, cli_for, finish
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import wait_for
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, Stack, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

RELAXED = 'relaxed_clusters = ["default"]\n'
LINES = 400


@pytest.fixture
async def relaxed(
    tmp_path: Path, private_containerd: PrivateContainerd, outside: tuple[Path, str]
) -> AsyncIterator[Stack]:
    async with make_stack(tmp_path, private_containerd, outside, plane_toml=RELAXED) as made:
        yield made


@pytest.fixture
async def without_copy(
    tmp_path: Path, private_containerd: PrivateContainerd, outside: tuple[Path, str]
) -> AsyncIterator[Stack]:
    async with make_stack(
        tmp_path, private_containerd, outside, plane_toml=RELAXED, FARGATE_AGENT_LOG_COPY="false"
    ) as made:
        yield made


def cli_of(stack: Stack) -> Cli:
    return cli_for(stack.plane, stack.socket)


async def read_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        return (await process.stdout.readline()).decode()


@pytest.mark.parametrize(
    "how",
    [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGKILL, id="SIGKILL")],
)
async def test_following_shows_each_line_once_while_agents_come_and_go(
    relaxed: Stack, registry: FakeRegistry, how: signal.Signals
) -> None:
    options = {"max-size": "10k", "max-file": "9", "compress": "true", "tag": "t"}
    script = (
        f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1));"
        f" [ $i -ne {LINES // 2} ] || while [ ! -e /tmp/go ]; do sleep 0.1; done; done"
    )
    arn = relaxed.run(
        tool(
            "main",
            script,
            logConfiguration={"logDriver": "json-file", "options": options},
            linuxParameters={"tmpfs": [{"containerPath": "/tmp", "size": 1}]},
        ),
        requiresCompatibilities=["EC2"],
    )
    await relaxed.wait_for(arn, "RUNNING")
    process = await cli_of(relaxed).start("logs", arn, "-f")
    shown = [await read_line(process) for _ in range(LINES // 2)]

    relaxed.agent.end(how)
    Path(f"/proc/{process_of(relaxed, arn)}/root/tmp/go").touch()
    relaxed.agent.start()
    wait_for(lambda: relaxed.agent.wrote("agent is ready"), "the next agent", DEADLINE_S)
    outcome = await finish(process)

    shown += outcome.out.splitlines(keepends=True)
    assert shown == [f"main | line {number}\n" for number in range(LINES)]
    assert outcome.code == 0
    directory = next((relaxed.root / "agent").rglob("main.log")).parent
    assert sorted(path.suffix for path in directory.iterdir()) == [".gz"] * 3 + [".log"]


async def test_logs_that_are_not_kept_are_refused_with_the_reason(
    without_copy: Stack, registry: FakeRegistry
) -> None:
    arn = without_copy.run(
        tool("main", "sleep 1000"),
        tool("kept", "echo here; sleep 1000", logConfiguration={"logDriver": "json-file"}),
        requiresCompatibilities=["EC2"],
    )
    await without_copy.wait_for(arn, "RUNNING")

    refused = await cli_of(without_copy).run("logs", arn, "--container", "main")
    followed = await cli_of(without_copy).run("logs", arn, "-f", "--container", "main")
    unknown = await cli_of(without_copy).run("logs", arn, "--container", "what")
    without_copy.stop(arn)
    kept = await cli_of(without_copy).run("logs", arn, "-f")

    reason = "isn't kept on this machine, as the agent's setting log_copy is false"
    assert (refused.code, refused.out) == (followed.code, followed.out) == (1, "")
    assert reason in refused.err
    assert "main logs to none" in refused.err
    assert unknown.code == 1
    assert "has no output of a container 'what'" in unknown.err
    assert (kept.code, kept.out) == (0, "kept | here\n")
