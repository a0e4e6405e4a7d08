"""`fargate events` and `fargate why` as programs, against the real control plane."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fargate_agent.parallel import first_of
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.cli import Cli, LocalSocket, cli_for, finish
from tests.fixtures.controlplane import DEADLINE_S, ControlPlane, ControlPlaneProcess
from tests.fixtures.events import run_task
from tests.fixtures.postgres import change_database
from tests.fixtures.requests import Answer, post, signed


async def run_to_end(agent: SimulatedAgent, ecs: Any, exit_code: int = 3) -> str:
    """Let a task live and end; return its id."""
    task = await asyncio.to_thread(run_task, ecs)
    message = await agent.take()
    await agent.bring_up(message)
    await agent.bring_down(message, exit_code)
    return task


@pytest.fixture
def cli(control_plane: ControlPlane, tmp_path: Path) -> Cli:
    return cli_for(control_plane, tmp_path / "none.sock")


@pytest.fixture
async def ended(simulated_agent: SimulatedAgent, ecs: Any) -> str:
    """Id of a task whose containers ended with exit code 3."""
    return await run_to_end(simulated_agent, ecs)


@pytest.mark.one_store
async def test_events_are_a_line_each(cli: Cli, ended: str) -> None:
    printed = await cli.run("events")

    assert printed.code == 0, printed.err
    rows = [line.split() for line in printed.out.splitlines()]
    assert {row[1] for row in rows} == {ended[:12]}
    assert {row[2] for row in rows} == {"web:1"}
    assert list(dict.fromkeys(row[3] for row in rows)) == [
        "PROVISIONING", "PENDING", "RUNNING", "STOPPED",
    ]  # fmt: skip
    assert "Essential container in task exited (EssentialContainerExited)" in printed.out


async def test_events_can_be_narrowed(
    cli: Cli, ended: str, simulated_agent: SimulatedAgent, ecs: Any
) -> None:
    other = await run_to_end(simulated_agent, ecs)

    of_one = await cli.run("events", "--task", ended, "--output", "json")
    of_no_time = await cli.run("events", "--since", "2100-01-01T00:00:00Z")
    of_all = await cli.run("events", "--since", "1h", "--cluster", "default")

    assert {line["resources"][0].rpartition("/")[2] for line in of_one.lines} == {ended}
    assert {line["detail-type"] for line in of_one.lines} == {"ECS Task State Change"}
    assert of_no_time.out == ""
    assert other[:12] in of_all.out


@pytest.mark.one_store
async def test_cluster_that_is_not_there_is_named(cli: Cli) -> None:
    refused = await cli.run("events", "--cluster", "none")

    assert refused.code == 1
    assert refused.err == "fargate: events: ClusterNotFoundException: Cluster not found.\n"


@pytest.mark.one_store
async def test_name_of_a_cluster_with_a_space_is_signed_as_it_is_sent(cli: Cli) -> None:
    refused = await cli.run("events", "--cluster", "a b")

    assert refused.err == "fargate: events: ClusterNotFoundException: Cluster not found.\n"


@pytest.mark.one_store
@pytest.mark.parametrize("endpoint", ["nonsense", "http://[::1", "ftp://localhost"])
async def test_endpoint_that_makes_no_sense_is_named(cli: Cli, endpoint: str) -> None:
    cli.env["AWS_ENDPOINT_URL_ECS"] = endpoint

    refused = await cli.run("events")

    assert refused.err == f"fargate: {endpoint}: not the URL of a control plane\n"


@pytest.mark.one_store
async def test_control_plane_that_is_away_is_said_in_one_line(cli: Cli) -> None:
    cli.env["AWS_ENDPOINT_URL_ECS"] = "http://127.0.0.1:9"

    refused = await cli.run("events", "-f")

    assert refused.code == 1
    assert refused.err.startswith("fargate: no control plane answers at http://127.0.0.1:9")
    assert refused.err.count("\n") == 1


class Followed:
    """`fargate events -f --output json`, while it runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: list[Any] = []

    async def until_stopped(self, task: str) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while True:
                line = await self._process.stdout.readline()
                assert line, "it has ended"
                self.events.append(event := json.loads(line))
                detail = event["detail"]
                if detail["lastStatus"] == "STOPPED" and detail["taskArn"].endswith(task):
                    return

    async def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit code and what stood on stderr."""
        self._process.send_signal(signal.SIGINT)
        outcome = await finish(self._process)
        return outcome.code, outcome.err


@pytest.mark.one_store
async def test_following_ends_quietly_with_an_interrupt(
    cli: Cli, ended: str, simulated_agent: SimulatedAgent, ecs: Any
) -> None:
    followed = Followed(await cli.start("events", "-f", "--since", "1h", "--output", "json"))
    await followed.until_stopped(ended)
    task = await run_to_end(simulated_agent, ecs)
    await followed.until_stopped(task)

    code, said = await followed.interrupt()
    assert (code, said.strip()) == (130, "")


class Door:
    """One address for a control plane that gets another port whenever it starts."""

    def __init__(self) -> None:
        self._url = ""
        self._jobs: list[asyncio.Task[None]] = []
        self.address = ""

    def lead_to(self, plane: ControlPlane) -> ControlPlane:
        """Return the control plane as it is seen through the door."""
        self._url = plane.url
        plane.url = self.address
        return plane

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Door"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self
            for job in self._jobs:
                job.cancel()
            await asyncio.wait(self._jobs)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._jobs.append(asyncio.create_task(self._pass(reader, writer)))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(self._url)
        try:
            there, to = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            writer.close()
            return
        try:
            await first_of(_copy(reader, to), _copy(there, writer))
        finally:
            for end in (to, writer):
                end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_follower_misses_nothing_while_the_control_plane_restarts(
    control_plane_process: ControlPlaneProcess, tmp_path: Path, how: str
) -> None:
    async with Door().open() as door:
        plane = door.lead_to(await asyncio.to_thread(control_plane_process.start))
        cli = cli_for(plane, tmp_path / "none.sock")
        async with SimulatedAgent(plane) as agent:
            first = await run_to_end(agent, plane.client())
        followed = Followed(await cli.start("events", "-f", "--since", "1h", "--output", "json"))
        await followed.until_stopped(first)

        await asyncio.to_thread(getattr(control_plane_process, how))
        plane = door.lead_to(await asyncio.to_thread(control_plane_process.start))
        async with agent:
            second = await run_to_end(agent, plane.client())
        await followed.until_stopped(second)
        code, _ = await followed.interrupt()

        everything = await cli.run("events", "--output", "json")
    assert code == 130
    assert followed.events == everything.lines


@pytest.mark.one_store
async def test_why_explains_a_task(cli: Cli, ended: str) -> None:
    told = await cli.run("why", ended[:8])

    assert told.code == 0, told.err
    assert told.out.startswith("Container app failed with exit code 3.\n")
    assert f"task          {ended}\n" in told.out
    assert "reason        Essential container in task exited (Essential" in told.out
    assert "app           STOPPED, exit code 3\n" in told.out
    assert [line.split()[0] for line in told.out.rpartition("\n\n")[2].splitlines()][
        -1
    ] == "stopped"


@pytest.mark.one_store
async def test_why_points_at_a_log_only_if_there_is_one(
    cli: Cli, ended: str, tmp_path: Path
) -> None:
    pointer = f"Its log says more: fargate logs {ended}\n"
    without_agent = await cli.run("why", ended)
    socket = LocalSocket(path=tmp_path / "none.sock")
    async with socket.serve():
        without_output = await cli.run("why", ended)
        socket.lines = [{"container": "side", "stream": "stdout", "time": "t", "log": "1\n"}]
        with_output = await cli.run("why", ended)
        for_programs = await cli.run("why", ended, "--output", "json")

    assert pointer not in without_agent.out
    assert pointer not in without_output.out
    assert pointer in with_output.out
    assert for_programs.document["advice"] == pointer.rstrip()


def _moment(moment: dict[str, Any]) -> tuple[str, float]:
    return moment["what"], moment["secondsLater"]


@pytest.mark.parametrize("chars", [32, 10])
async def test_why_knows_a_task_that_was_forgotten(
    cli: Cli, ended: str, control_plane: ControlPlane, chars: int
) -> None:
    before = await cli.run("why", ended, "--output", "json")
    await change_database(control_plane.database, "DELETE FROM enis")
    await change_database(control_plane.database, "DELETE FROM tasks")

    told = await cli.run("why", ended[:chars], "--output", "json")

    assert told.code == 0, told.err
    assert told.document["explanation"] == "Container app failed with exit code 3."
    names, later_s = zip(*map(_moment, told.document["timeline"]), strict=True)
    names_before, later_s_before = zip(*map(_moment, before.document["timeline"]), strict=True)
    assert names == names_before
    assert later_s == pytest.approx(later_s_before, abs=0.002)  # events have milliseconds


SECRET = {"kind": "secret", "what": "prod/db", "by": "the value of `fargate secrets`"}
IMAGE = {"kind": "image", "what": "web:1", "by": "mirror:5000/web:1"}
TOLD = "secret prod/db by the value of `fargate secrets`"


async def test_what_was_replaced_is_told_once_and_known_for_as_long_as_the_task(
    cli: Cli, control_plane: ControlPlane, simulated_agent: SimulatedAgent, ecs: Any
) -> None:
    def submit(**facts: Any) -> Answer:
        body = json.dumps({"cluster": "default", "task": arn, **facts}).encode()
        headers = signed(control_plane, "SubmitTaskStateChange", body, "agent")
        return post(control_plane, body, headers)

    plain = await run_to_end(simulated_agent, ecs)
    task = await asyncio.to_thread(run_task, ecs)
    message = await simulated_agent.take()
    arn = message["arn"]
    for replaced in ([SECRET], [SECRET], [SECRET, IMAGE]):
        answer = await asyncio.to_thread(submit, replacements=replaced)
        assert answer[0] == 200, answer
    while_it_starts = await cli.run("why", task)
    await simulated_agent.bring_up(message)
    await simulated_agent.bring_down(message, 3)

    events = await cli.run("events", "--task", task)
    ended = await cli.run("why", task)
    await change_database(control_plane.database, "DELETE FROM enis")
    await change_database(control_plane.database, "DELETE FROM tasks")
    forgotten = await cli.run("why", task)
    parsed = await cli.run("why", task, "--output", "json")
    unreplaced = await cli.run("why", plain)

    lines = [line for line in events.out.splitlines() if "replaced" in line]
    assert [line.partition("  ")[2] for line in lines] == [
        f"{task[:12]}  replaced on this machine: {TOLD}",
        f"{task[:12]}  replaced on this machine: image web:1 by mirror:5000/web:1",
    ]
    for told in (while_it_starts, ended, forgotten):
        assert (
            f"\nreplaced on this machine\n  {TOLD}\n  image web:1 by mirror:5000/web:1\n"
            in told.out
        )
    assert parsed.document["replacements"] == [SECRET, IMAGE]
    assert "replaced" not in unreplaced.out


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("task", "said"),
    [
        pytest.param("f" * 32, f"no task {'f' * 32} in cluster default", id="id"),
        pytest.param("abc", "no task begins with 'abc' in cluster default", id="prefix"),
    ],
)
async def test_why_does_not_know_what_never_was(cli: Cli, task: str, said: str) -> None:
    refused = await cli.run("why", task)

    assert refused.code == 1
    assert refused.err == f"fargate: {said}, nor is it in the history\n"
