"""Keys of every kind, and a file of keys that changes while the control plane runs."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.cli.main import main
from tests.fixtures.controlplane import DEADLINE_S, ControlPlane, StartControlPlane, write_keys

SECRET, TOKEN = "s" * 40, "t" * 40
INVALID = ("UnrecognizedClientException", "The security token included in the request is invalid.")
EXPIRED = ("ExpiredTokenException", "The security token included in the request is expired")
ANSWERED = ("", "")
SOON = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
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
