"""`fargate secrets` as a program, against the part of an agent that keeps the values."""

import asyncio
import os
import pty
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from fargate_agent.local.registries import RegistryRoutes
from fargate_agent.local.secrets import SecretRoutes
from fargate_agent.local.server import LocalServer
from fargate_agent.secrets.local_store import LocalSecrets
from tests.fixtures.cli import DEADLINE_S, FARGATE, Cli, plain_env


@dataclass(frozen=True, kw_only=True)
class Agent:
    """What listens on the socket, and what it keeps."""

    socket: Path
    store: LocalSecrets

    async def values(self) -> dict[str, str]:
        kept = await asyncio.to_thread(self.store.read)
        return {name: secret.value for name, secret in kept.items()}

    async def put(self, *names: str) -> None:
        for name in names:
            await asyncio.to_thread(self.store.put, name, "geheim")


def make_server(store: LocalSecrets, *, are_used: bool = True) -> LocalServer:
    """Make the server of an agent of which only the secrets are asked for."""
    nobody = cast(Any, None)
    return LocalServer(
        supervisor=nobody,
        images=nobody,
        secrets=SecretRoutes(store=store, are_used=are_used),
        registries=RegistryRoutes(logins=nobody, auth_file=None, check=nobody),
        findings=nobody,
        look=nobody,
        logs_dir=Path("/nowhere"),
        log_copy=True,
        spool_dir=Path("/nowhere"),
        is_connected=lambda: True,
        containerd_version="",
        cgroups="",
        render_metrics=nobody,
    )


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    store, socket = LocalSecrets(tmp_path / "state"), tmp_path / "agent.sock"
    async with make_server(store).serve(socket):
        yield Agent(socket=socket, store=store)


def environment(socket: Path) -> dict[str, str]:
    return plain_env(FARGATE_AGENT_SOCKET=str(socket), AWS_ENDPOINT_URL_ECS="http://127.0.0.1:9")


@pytest.fixture
def cli(agent: Agent) -> Cli:
    return Cli(environment(agent.socket))


@pytest.mark.parametrize(
    ("given", "value"),
    [
        pytest.param("geheim", "geheim", id="as it is"),
        pytest.param("geheim\n", "geheim", id="without its newline"),
        pytest.param("geheim\r\n", "geheim", id="nor that of Windows"),
        pytest.param("two\nlines\n\n", "two\nlines\n", id="of several only the last"),
        pytest.param(" grün ", " grün ", id="blanks stay"),
        pytest.param("x" * 65536 + "\n", "x" * 65536, id="largest"),
        pytest.param("geheim\r", "geheim\r", id="half a newline"),
    ],
)
async def test_value_comes_from_standard_input(
    cli: Cli, agent: Agent, given: str, value: str
) -> None:
    done = await cli.run("secrets", "set", "prod/db", stdin=given)

    assert (done.code, done.out, done.err) == (0, "set prod/db\n", "")
    assert await agent.values() == {"prod/db": value}


async def test_value_comes_from_a_file_with_all_that_it_has(
    cli: Cli, agent: Agent, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN\nKEY\n")

    from_file = await cli.run("secrets", "set", "key", "--file", str(tmp_path / "key.pem"))
    from_stdin = await cli.run("secrets", "set", "/key", "--file", "-", stdin="a\n")

    assert (from_file.code, from_stdin.code) == (0, 0)
    assert await agent.values() == {"key": "-----BEGIN\nKEY\n", "/key": "a\n"}


@pytest.mark.parametrize(
    ("arguments", "given", "text"),
    [
        pytest.param(["a"], "", "standard input is empty", id="nothing"),
        pytest.param(["a"], "\n", "standard input is empty", id="a newline"),
        pytest.param(["a"], "x" * 65537, "standard input has more than 64 KiB", id="large"),
        pytest.param(["a"], "x" * 65536 + "\r\nx", "input has more than 64 KiB", id="lines"),
        pytest.param(["a", "--file", "-"], "x" * 70000, "has more than 64 KiB", id="large file"),
        pytest.param(["a", "--file", "/nowhere"], "", "/nowhere: No such file", id="no file"),
        pytest.param(["a", "--file", "/dev/null"], "", "/dev/null is empty", id="empty file"),
        pytest.param(["a", "--file", "/"], "", "/: Is a directory", id="directory"),
        pytest.param(["a"], "geheim\0", "agent: the value has a NUL character", id="NUL"),
        pytest.param(["a b"], "geheim", "agent: a name has 1 to 2048 letters", id="name"),
        pytest.param(["a", "geheim"], "", "unexpected extra argument", id="value as an argument"),
    ],
)
async def test_value_that_cannot_be_is_refused_in_one_line(
    cli: Cli, agent: Agent, arguments: list[str], given: str, text: str
) -> None:
    done = await cli.run("secrets", "set", *arguments, stdin=given)

    assert done.code != 0
    assert text in done.err
    assert len(done.err.splitlines()) == 1
    assert await agent.values() == {}


async def test_value_that_is_no_text_is_refused(cli: Cli, agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"geheim\xff")

    done = await cli.run("secrets", "set", "a", "--file", str(tmp_path / "binary"))

    assert (done.code, done.err) == (1, "fargate: agent: the value is not UTF-8 text\n")
    assert await agent.values() == {}


async def test_terminal_asks_and_shows_nothing(agent: Agent) -> None:
    """getpass(3) speaks to the controlling terminal, so the program gets one of its own."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the program
        os.execve(FARGATE, [FARGATE, "secrets", "set", "prod/db"], environment(agent.socket))
    try:
        shown = await _read_until(terminal, b"value of prod/db: ")
        os.write(terminal, b"geheim\n")
        shown += await _read_until(terminal, b"set prod/db")
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    finally:
        os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == 0
    assert b"geheim" not in shown
    assert await agent.values() == {"prod/db": "geheim"}


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        pytest.param(b"x" * 5000, b"use --file or standard input", id="long"),
        pytest.param(b"\xff\xfe", b"fargate: what was typed is not UTF-8 text", id="no text"),
    ],
)
async def test_what_a_terminal_does_not_give_is_refused(
    agent: Agent, typed: bytes, text: bytes
) -> None:
    """A terminal cuts a line that is too long."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the program
        os.execve(FARGATE, [FARGATE, "secrets", "set", "prod/db"], environment(agent.socket))
    try:
        await _read_until(terminal, b"value of prod/db: ")
        os.write(terminal, typed + b"\n")
        shown = await _read_until(terminal, text)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    finally:
        os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == 1
    assert b"Traceback" not in shown
    assert await agent.values() == {}


async def _read_until(terminal: int, text: bytes) -> bytes:
    shown = b""
    async with asyncio.timeout(DEADLINE_S):
        while text not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 4096)
    return shown


async def test_names_and_dates_are_listed_and_no_values(cli: Cli, agent: Agent) -> None:
    await agent.put("prod/db", "/app/key")

    listed = await cli.run("secrets", "ls")
    as_json = await cli.run("secrets", "ls", "--output", "json")

    header, *rows = listed.out.splitlines()
    assert header.split() == ["NAME", "SET"]
    assert [row.split()[0] for row in rows] == ["/app/key", "prod/db"]
    assert all(re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", row) for row in rows)
    assert [one["name"] for one in as_json.document["secrets"]] == ["/app/key", "prod/db"]
    assert "geheim" not in listed.out + as_json.out


async def test_names_do_not_break_a_narrow_terminal(agent: Agent) -> None:
    name = "arn:aws:secretsmanager:us-east-1:123456789012:secret:production/database-AbCdEf"
    await agent.put(name)
    narrow = Cli({**environment(agent.socket), "COLUMNS": "40"})

    listed = await narrow.run("secrets", "ls")

    assert listed.out.splitlines()[0] == name
    assert listed.out.splitlines()[1].startswith("  set 2")


async def test_secret_is_removed_once(cli: Cli, agent: Agent) -> None:
    await agent.put("a")

    removed = await cli.run("secrets", "rm", "a")
    again = await cli.run("secrets", "rm", "a")

    assert (removed.code, removed.out) == (0, "removed a\n")
    assert again.code == 1
    assert again.err == "fargate: agent: there is no secret a; fargate secrets ls has all names\n"
    assert await agent.values() == {}


async def test_store_that_cannot_be_read_is_told(cli: Cli, agent: Agent, tmp_path: Path) -> None:
    await agent.put("a")
    (tmp_path / "state" / "secrets.key").unlink()

    told = [
        await cli.run("secrets", "ls"),
        await cli.run("secrets", "set", "b", stdin="x"),
        await cli.run("secrets", "rm", "a"),
    ]

    assert [one.code for one in told] == [1, 1, 1]
    assert all("secrets.key: No such file or directory: put the one" in one.err for one in told)


async def test_machine_that_has_aws_says_that_values_here_are_not_used(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    async with make_server(LocalSecrets(tmp_path / "state"), are_used=False).serve(socket):
        cli = Cli(environment(socket))
        done = await cli.run("secrets", "set", "a", stdin="geheim")
        listed = await cli.run("secrets", "ls", "--output", "json")

    assert (done.code, done.out) == (0, "set a\n")
    assert "tasks don't get these values: the agent reads secrets from AWS" in done.err
    assert listed.document["used"] is False


async def test_no_agent_is_told_in_one_line(tmp_path: Path) -> None:
    done = await Cli(environment(tmp_path / "none.sock")).run("secrets", "set", "a", stdin="x")

    assert done.code == 1
    assert done.err.startswith(f"fargate: no agent answers at {tmp_path}/none.sock")


async def test_members_of_the_socket_s_group_may_use_it_and_nobody_else(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    async with make_server(LocalSecrets(tmp_path / "state")).serve(socket, os.getgid()):
        assert stat.S_IMODE(socket.stat().st_mode) == 0o660

        done = await Cli(environment(socket)).run("secrets", "set", "a", stdin="x")

    assert done.code == 0
