"""`fargate logs` as a program: on a terminal, and while the agent is started again."""

import asyncio
import json
import os
import pty
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.fixtures.cli import FARGATE, Cli, LocalSocket, finish, plain_env

TASK = "0123456789abcdef0123456789abcdef"
LONG_NAME = "a-very-long-name-for-a-container"
RED_TEXT = "\x1b[31mred\x1b[0m"
COLOURED = re.compile(r"\x1b\[(\d+)m([^\x1b]*?) *\| \x1b\[0m")


def make_line(container: str, second: int, text: str, stream: str = "stdout") -> dict[str, str]:
    moment = f"2026-11-21T10:00:{second:02}.000000001Z"
    return {"container": container, "stream": stream, "time": moment, "log": f"{text}\n"}


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[LocalSocket]:
    lines = [
        make_line("web", 1, "1"),
        make_line("side", 2, "2", "stderr"),
        make_line("web", 3, RED_TEXT),
        make_line(LONG_NAME, 4, "4"),
    ]
    async with LocalSocket(tmp_path / "agent.sock", lines=lines).serve() as socket:
        yield socket


def make_cli(socket: Path, **environment: str) -> Cli:
    return Cli(
        plain_env(
            FARGATE_AGENT_SOCKET=str(socket),
            AWS_ENDPOINT_URL_ECS="http://127.0.0.1:9",
            **environment,
        )
    )


async def show_on_terminal(agent: LocalSocket, **environment: str) -> str:
    """Return what a terminal of 40 columns is sent."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        FARGATE,
        "logs",
        TASK,
        env=make_cli(agent.path, TERM="xterm", COLUMNS="40", **environment).env,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen = await asyncio.to_thread(read_all, ours)
    assert await process.wait() == 0
    return screen


def read_all(descriptor: int) -> str:
    chunks = []
    try:
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    except OSError:
        pass  # nobody has the terminal open any more
    os.close(descriptor)
    return b"".join(chunks).decode()


async def test_each_container_has_a_colour_of_its_own_that_stays(agent: LocalSocket) -> None:
    first = COLOURED.findall(await show_on_terminal(agent))
    agent.lines.reverse()
    second = COLOURED.findall(await show_on_terminal(agent))

    assert len(first) == len(agent.lines)
    assert sorted(first) == sorted(second)
    assert len({colour for colour, _ in first}) == len({name for _, name in first}) == 3


async def test_names_leave_room_for_the_text_on_a_narrow_terminal(agent: LocalSocket) -> None:
    agent.lines.reverse()

    screen = await show_on_terminal(agent, NO_COLOR="1")

    assert screen.replace("\r\n", "\n").splitlines() == [
        "a-very-lo… | 4",
        f"web        | {RED_TEXT}",
        "side       | 2",
        "web        | 1",
    ]


async def test_what_goes_into_a_pipe_has_no_colours_but_those_of_the_container(
    agent: LocalSocket,
) -> None:
    read = await make_cli(agent.path).run("logs", TASK)

    assert read.out == f"web | 1\nweb | {RED_TEXT}\n{LONG_NAME} | 4\n"
    assert read.err == "side | 2\n"


class Restarting:
    """An agent that sends what is there, and holds the connection until it is ended."""

    def __init__(self, path: Path, lines: Sequence[dict[str, str]]) -> None:
        self.path = path
        self.lines = list(lines)
        self.sent = asyncio.Event()
        self.complete = False
        self.queries: list[dict[str, str]] = []

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        app = web.Application()
        app.add_routes(
            [web.get("/v1/health", self._health), web.get("/v1/tasks/{id}/logs", self._logs)]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(self.path)).start()
        try:
            yield
        finally:
            await runner.cleanup()
            self.path.unlink(missing_ok=True)
            self.sent.clear()

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        response = web.StreamResponse()
        await response.prepare(request)
        since = request.query.get("since", "")[:19]
        for line in self.lines:
            if line["time"] >= since:
                await response.write(json.dumps(line).encode() + b"\n")
        self.sent.set()
        if not self.complete:
            await asyncio.Event().wait()
        return response


async def test_several_containers_can_be_chosen(agent: LocalSocket) -> None:
    agent.lines = [make_line("web", 1, "1"), make_line("side", 2, "2")]

    read = await make_cli(agent.path).run(
        "logs", TASK, "-t", "--container", "web", "--container", "side"
    )

    assert read.out == (
        "2026-11-21T10:00:01.000000001Z web | 1\n2026-11-21T10:00:02.000000001Z side | 2\n"
    )
    assert agent.asked == ["web", "side"]


async def test_following_goes_on_where_it_was_when_the_agent_is_started_again(
    tmp_path: Path,
) -> None:
    agent = Restarting(
        tmp_path / "agent.sock",
        [
            make_line("web", 1, "a"),
            make_line("side", 2, "b"),
            make_line("web", 3, "c"),
            make_line("web", 3, "d"),
        ],
    )
    async with agent.serve():
        process = await make_cli(agent.path).start("logs", TASK, "-f")
        assert process.stdout is not None
        await agent.sent.wait()
        before = [await process.stdout.readline() for _ in agent.lines]
    agent.lines += [make_line("web", 3, "e"), make_line("side", 4, "f"), make_line("late", 5, "g")]
    agent.complete = True

    async with agent.serve():
        outcome = await finish(process)

    assert before == [b"web | a\n", b"side | b\n", b"web | c\n", b"web | d\n"]
    assert (outcome.code, outcome.out) == (0, "web | e\nside | f\nlate | g\n")
    assert "connection lost" in outcome.err
    assert agent.queries[1]["since"] == "2026-11-21T10:00:02.000000001Z"


async def test_following_with_a_tail_asks_for_no_tail_again(tmp_path: Path) -> None:
    agent = Restarting(tmp_path / "agent.sock", [])
    async with agent.serve():
        process = await make_cli(agent.path).start("logs", TASK, "-f", "--tail", "3")
        await agent.sent.wait()
    agent.lines = [make_line("web", 1, "old")]
    agent.complete = True

    async with agent.serve():
        outcome = await finish(process)

    assert (outcome.code, outcome.out) == (0, "")
    assert agent.queries[0]["tail"] == "3"
    assert "tail" not in agent.queries[1]


async def test_following_does_not_wait_for_an_agent_that_is_not_there(tmp_path: Path) -> None:
    outcome = await make_cli(tmp_path / "none.sock").run("logs", TASK, "-f")

    assert outcome.code == 1
    assert f"no agent answers at {tmp_path}/none.sock" in outcome.err
