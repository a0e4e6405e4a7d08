"""`fargate logs`, `images` and `doctor` as programs, against a socket that speaks for the agent."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fixtures.cli import Cli, LocalSocket, plain_env

TASK = "0123456789abcdef0123456789abcdef"
LINES = [
    {
        "container": "web",
        "stream": "stdout",
        "time": "2026-11-21T10:00:00.000000001Z",
        "log": "1\n",
    },
    {
        "container": "app",
        "stream": "stderr",
        "time": "2026-11-21T10:00:01.000000001Z",
        "log": "2\n",
    },
    {"container": "web", "stream": "stdout", "time": "2026-11-21T10:00:02.000000001Z", "log": "3"},
]


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[LocalSocket]:
    async with LocalSocket(tmp_path / "agent.sock", lines=list(LINES)).serve() as socket:
        yield socket


@pytest.fixture
def cli(agent: LocalSocket) -> Cli:
    return Cli(
        plain_env(FARGATE_AGENT_SOCKET=str(agent.path), AWS_ENDPOINT_URL_ECS="http://127.0.0.1:9")
    )


async def test_logs_go_where_the_container_wrote_them(cli: Cli) -> None:
    read = await cli.run("logs", TASK)

    assert (read.code, read.out, read.err) == (0, "web | 1\nweb | 3\n", "app | 2\n")


async def test_logs_need_no_control_plane_for_a_whole_arn(cli: Cli) -> None:
    read = await cli.run("logs", f"arn:aws:ecs:us-east-1:000000000000:task/default/{TASK}")

    assert read.code == 0


async def test_logs_of_one_container_have_no_name_before_them(cli: Cli, agent: LocalSocket) -> None:
    agent.lines[1:2] = []

    read = await cli.run("logs", TASK, "--container", "web", "--timestamps")

    assert read.out.splitlines()[0] == "2026-11-21T10:00:00.000000001Z 1"
    assert agent.queries == [{"container": "web", "follow": "0"}]


async def test_logs_are_asked_for_as_the_options_say(cli: Cli, agent: LocalSocket) -> None:
    agent.ended.set()
    before = datetime.now(UTC)

    await cli.run("logs", TASK, "-f", "--tail", "7", "--since", "10m")

    (query,) = agent.queries
    assert (query["follow"], query["tail"]) == ("1", "7")
    asked = datetime.fromisoformat(query["since"]) + timedelta(minutes=10)
    assert before <= asked <= datetime.now(UTC)


async def test_logs_are_json_lines(cli: Cli) -> None:
    read = await cli.run("logs", TASK, "--output", "json")

    assert read.lines == [{**line, "log": line["log"].rstrip("\n")} for line in LINES]


async def test_logs_survive_a_line_longer_than_any_buffer(cli: Cli, agent: LocalSocket) -> None:
    agent.lines = [{**LINES[0], "log": "\x01" * 1_000_000}]

    read = await cli.run("logs", TASK)

    assert len(read.out) == 1_000_000 + len("web | \n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([TASK, "--since", "soon"], "--since soon: neither an age such as", id="since"),
        pytest.param(["0" * 32], "agent: nothing is known of this task", id="unknown task"),
    ],
)
async def test_logs_that_are_not_there_are_refused(
    cli: Cli, arguments: list[str], said: str
) -> None:
    refused = await cli.run("logs", *arguments)

    assert refused.code == 1
    assert said in refused.err


async def test_images_are_loaded_from_a_file_and_from_stdin(
    cli: Cli, agent: LocalSocket, tmp_path: Path
) -> None:
    archive = tmp_path / "web.tar"
    archive.write_bytes(b"x" * 300_000)

    loaded = await cli.run("images", "load", str(archive))
    options = ["--name", "web:1", "--output", "json"]
    piped = await cli.run("images", "load", "-", *options, stdin="y" * 70_000)

    assert (loaded.code, loaded.out) == (0, "loaded docker.io/library/web:1\n")
    assert piped.document == {"loaded": ["docker.io/library/web:1"]}
    assert agent.loaded == [b"x" * 300_000, b"y" * 70_000]
    assert agent.queries == [{"file": str(archive)}, {"file": "standard input", "name": "web:1"}]


async def test_images_are_listed_removed_and_pruned(cli: Cli, agent: LocalSocket) -> None:
    agent.images = [{"name": "web:1", "digest": f"sha256:{'a' * 64}", "sizeBytes": 2048}]

    listed = await cli.run("images", "ls")
    removed = await cli.run("images", "rm", "web:1")
    missing = await cli.run("images", "rm", "none:1")
    pruned = await cli.run("images", "prune")

    row = listed.out.splitlines()[1].split()
    assert row == ["web:1", "sha256:aaaaaaaaaaaa", "2.0", "KiB", "-", "-", "-"]
    assert removed.out == "removed web:1\n"
    assert (missing.code, missing.err) == (1, "fargate: agent: there is no image none:1\n")
    assert pruned.out == "removed docker.io/library/old:1\nfreed 3.0 MiB\n"
    assert agent.pruned == 1


async def test_images_that_would_be_pruned_are_listed_and_stay(
    cli: Cli, agent: LocalSocket
) -> None:
    shown = await cli.run("images", "prune", "--dry-run")
    document = await cli.run("images", "prune", "--dry-run", "--output", "json")

    assert shown.out == "would remove docker.io/library/old:1\nwould free 3.0 MiB\n"
    assert document.document == {
        "wouldRemove": ["docker.io/library/old:1"],
        "freedBytes": 3 << 20,
    }
    assert agent.pruned == 0


async def test_images_that_can_not_be_read_are_refused_with_the_file(cli: Cli) -> None:
    refused = await cli.run("images", "load", "/no/web.tar")

    assert (refused.code, refused.err) == (1, "fargate: /no/web.tar: No such file or directory\n")


async def test_doctor_tells_what_does_not_answer_and_what_is_denied(
    cli: Cli, agent: LocalSocket
) -> None:
    agent.connected = False
    agent.findings = [{"what": "no CAP_SYS_RESOURCE", "effect": "limits stay as they are"}]

    told = await cli.run("doctor")

    assert told.code == 1
    assert "agent 0.1.0, containerd 1.6.20" in told.out
    assert "not connected to its control plane: no task starts here" in told.out
    assert "no CAP_SYS_RESOURCE: limits stay as they are" in told.out


async def test_doctor_tells_what_only_a_task_could_meet(cli: Cli, agent: LocalSocket) -> None:
    agent.findings = [
        {"what": "a", "effect": "b", "met": False},
        {"what": "c", "effect": "d", "met": True},
    ]

    told = await cli.run("doctor")

    assert "a: b\n" in told.out
    assert "c: d (a task has met this since the machine was started)\n" in told.out


async def test_doctor_looks_at_the_machine_where_no_agent_runs(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('snapshotter = "native"\n')

    told = await Cli(plain_env()).run("doctor", "--state-dir", str(tmp_path), "--output", "json")
    text = await Cli(plain_env()).run("doctor", "--state-dir", str(tmp_path))

    assert told.code == text.code == 1
    whats = [finding["what"] for finding in told.document["findings"]]
    assert whats[0].startswith(f"no stack is ready in {tmp_path}: start one with")
    socket = tmp_path / "run" / "containerd.sock"
    assert f"containerd doesn't answer at {socket}: No such file or directory" in whats
    assert text.out.startswith("no agent answers; this is what is seen without one\n")
    assert await asyncio.to_thread(lambda: len(list(tmp_path.iterdir()))) == 1


async def test_doctor_names_the_settings_with_which_it_can_not_look(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("not TOML\n")

    told = await Cli(plain_env()).run("doctor", "--state-dir", str(tmp_path))

    assert told.code == 1
    assert f"fargate-agent: {tmp_path}/agent.toml:1: " in told.out
    assert "the machine was not looked at" in told.out


async def test_doctor_names_the_process_that_holds_the_port(
    agent: LocalSocket, tmp_path: Path
) -> None:
    async with await asyncio.start_server(_hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        environment = plain_env(
            FARGATE_AGENT_SOCKET=str(agent.path),
            AWS_ENDPOINT_URL_ECS=f"http://127.0.0.1:{port}",
            AWS_ACCESS_KEY_ID="AKIA",
            AWS_SECRET_ACCESS_KEY="s",
        )
        told = await Cli(environment).run("doctor")

    assert f"(its port is held by process {os.getpid()}, " in told.out


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_agent_that_has_gone_is_named(cli: Cli, agent: LocalSocket) -> None:
    agent.path.unlink()

    refused = await cli.run("images", "ls")

    assert refused.code == 1
    assert f"no agent answers at {agent.path}" in refused.err
