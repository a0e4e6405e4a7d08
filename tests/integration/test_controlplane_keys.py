"""Keys of every kind, and a file of keys that changes while the control plane runs."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError

from fargate_agent.cli.main import main
from fargate_agent.controlplane.access import keyring
from fargate_agent.controlplane.agents import connections
from fargate_agent.controlplane.history import stream
from fargate_agent.wire.messages import PayloadMessage
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import DEADLINE_S, ControlPlane, StartControlPlane, write_keys
from tests.fixtures.ecs import FARGATE, NO_CAPACITY, run
from tests.fixtures.events import reading, run_task

pytestmark = pytest.mark.one_store

SECRET, TOKEN = "s" * 40, "t" * 40
INVALID = ("UnrecognizedClientException", "The security token included in the request is invalid.")
EXPIRED = ("ExpiredTokenException", "The security token included in the request is expired")
ANSWERED = ("", "")
SOON = (datetime.now(UTC) + timedelta(days=1)).isoformat()
BEFORE = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()


def render_key(key_id: str, more: str = "") -> str:
    return (
        f'[[key]]\naccess_key_id = "{key_id}"\nsecret_access_key = "{SECRET}"\n'
        f'principal = "admin"\n{more}\n'
    )


PERMANENT, TEMPORARY, OLD, INACTIVE = (letter * 20 for letter in "PTOI")
KEYS = (
    render_key(PERMANENT)
    + render_key(TEMPORARY, f'session_token = "{TOKEN}"\nexpires_at = {SOON}')
    + render_key(OLD, f'session_token = "{TOKEN}"\nexpires_at = {BEFORE}')
    + render_key(INACTIVE, 'status = "Inactive"')
)


def ask(client: Any) -> tuple[str, str]:
    """Make a call; return the code and text of the error."""
    try:
        client.list_clusters()
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"]["Message"]
    return ANSWERED


def use(plane: ControlPlane, key_id: str, token: str | None = None) -> Any:
    return plane.client(
        aws_access_key_id=key_id, aws_secret_access_key=SECRET, aws_session_token=token
    )


def wait_until(holds: Callable[[], bool]) -> None:
    """Return when it is so: the control plane looks at its keys once a second."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end


@pytest.fixture
def keys_file(state_dir: Path) -> Path:
    """Keys of every kind, there before the control plane starts."""
    return write_keys(state_dir, KEYS)


@pytest.mark.parametrize(
    ("key_id", "token", "answer"),
    [
        pytest.param(PERMANENT, None, ANSWERED, id="permanent"),
        pytest.param(PERMANENT, TOKEN, INVALID, id="permanent with a token"),
        pytest.param(TEMPORARY, TOKEN, ANSWERED, id="temporary"),
        pytest.param(TEMPORARY, None, INVALID, id="temporary without its token"),
        pytest.param(TEMPORARY, "x" * 40, INVALID, id="temporary with another token"),
        pytest.param(OLD, TOKEN, EXPIRED, id="expired"),
        pytest.param(OLD, "x" * 40, INVALID, id="expired with another token"),
        pytest.param(INACTIVE, None, INVALID, id="inactive"),
        pytest.param("U" * 20, None, INVALID, id="unknown"),
    ],
)
def test_key_is_answered_as_its_kind_is(
    key_id: str,
    token: str | None,
    answer: tuple[str, str],
    keys_file: Path,
    start_control_plane: StartControlPlane,
) -> None:
    assert ask(use(start_control_plane(), key_id, token)) == answer


def test_keys_change_without_a_restart(
    keys_file: Path, start_control_plane: StartControlPlane
) -> None:
    client = use(start_control_plane(), PERMANENT)
    assert ask(client) == ANSWERED

    keys_file.write_text(KEYS.replace(PERMANENT, "N" * 20))

    wait_until(lambda: ask(client) == INVALID)


def test_key_that_the_command_line_disables_is_refused(
    keys_file: Path, start_control_plane: StartControlPlane
) -> None:
    client = use(start_control_plane(), PERMANENT)
    other = ["create", "--principal", "admin", "--keys-file", str(keys_file)]
    assert main(["keys", *other]) == 0
    assert ask(client) == ANSWERED

    assert main(["keys", "disable", PERMANENT, "--keys-file", str(keys_file)]) == 0

    wait_until(lambda: ask(client) == INVALID)


def test_keys_go_on_when_their_file_becomes_wrong(
    keys_file: Path, start_control_plane: StartControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    client = use(start_control_plane(), PERMANENT)
    ask(client)

    keys_file.write_text(f"{KEYS}\nwrong")
    wait_until(lambda: ask(client) != ANSWERED or "stay in force" in caplog.text)

    assert ask(client) == ANSWERED
    assert SECRET not in caplog.text


AGENTS, READERS = "G" * 20, "R" * 20
OPEN = f"""{render_key(PERMANENT)}
{render_key(AGENTS).replace('"admin"', '"agent"')}
{render_key(READERS).replace('"admin"', '"reader"')}
[principal.reader]
policy = '''
{{"Statement": [{{"Effect": "Allow", "Action": "fargate:ListEvents", "Resource": "*"}}]}}'''
[principal.narrow]
policy = '''
{{"Statement": [{{"Effect": "Allow", "Action": "ecs:*",
  "Resource": ["arn:aws:ecs:*:*:cluster/default", "arn:aws:ecs:*:*:container-instance/*"]}}]}}'''
[principal.nobody]
policy = '''{{"Statement": [{{"Effect": "Deny", "Action": "*", "Resource": "*"}}]}}'''
"""
"""Keys of an operator, of an agent, and of a reader of events."""


def change_key(keys_file: Path, key_id: str, old: str, new: str) -> None:
    """Replace something in what stands behind the id of a key."""
    before, found, after = keys_file.read_text().partition(key_id)
    keys_file.write_text(before + found + after.replace(old, new, 1))


CHANGES = [
    pytest.param("principal", 'status = "Inactive"\nprincipal', id="disabled"),
    pytest.param(
        "principal",
        f'session_token = "{TOKEN}"\nexpires_at = {BEFORE}\nprincipal',
        id="expired",
    ),
    pytest.param(SECRET, "n" * 40, id="another secret"),
    pytest.param('principal = "', 'principal = "nobody" # "', id="another policy"),
    pytest.param('principal = "', 'principal = "narrow" # "', id="for fewer clusters"),
    pytest.param('"\n', 'X"\n', id="gone"),
]
"""What makes a key one that may no longer have what it has opened."""


@pytest.fixture
def open_keys(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keys for what stays open, which the control plane looks at whenever it needs one."""
    monkeypatch.setattr(keyring, "LOOK_EVERY_S", 0)
    return write_keys(state_dir, OPEN)


@pytest.mark.parametrize(("old", "new"), CHANGES)
async def test_agent_whose_key_is_no_good_any_more_is_cut_off(
    old: str,
    new: str,
    open_keys: Path,
    start_control_plane: StartControlPlane,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.05)
    plane = await asyncio.to_thread(start_control_plane)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        change_key(open_keys, AGENTS, old, new)

        await agent.wait_closed()

        answer = await asyncio.to_thread(run, ecs)
    assert [failure["reason"] for failure in answer["failures"]] == [NO_CAPACITY]


async def test_agent_whose_key_is_no_good_any_more_is_handed_no_task(
    open_keys: Path, start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 3600)  # so the instance seems to be there
    plane = await asyncio.to_thread(start_control_plane)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        change_key(open_keys, AGENTS, "principal", 'status = "Inactive"\nprincipal')

        await asyncio.to_thread(run, ecs)

        with pytest.raises(aiohttp.WSMessageTypeError):  # what comes next says that it is over
            await agent.receive(PayloadMessage)


@pytest.mark.parametrize(("old", "new"), CHANGES)
async def test_stream_of_a_reader_whose_key_is_no_good_any_more_breaks_off(
    old: str,
    new: str,
    open_keys: Path,
    start_control_plane: StartControlPlane,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    plane = await asyncio.to_thread(start_control_plane)
    async with reading(plane, "reader", follow="true") as reader:
        await reader.heartbeat()

        change_key(open_keys, READERS, old, new)

        with pytest.raises(aiohttp.ClientError):
            await reader.rest()


async def test_reader_whose_key_is_no_good_any_more_hears_of_no_event(
    open_keys: Path, start_control_plane: StartControlPlane
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    async with SimulatedAgent(plane), reading(plane, "reader", follow="true") as reader:
        change_key(open_keys, READERS, "principal", 'status = "Inactive"\nprincipal')

        await asyncio.to_thread(run_task, plane.client())

        with pytest.raises(aiohttp.ClientError):
            await reader.next()
