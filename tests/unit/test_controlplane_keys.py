import json
import logging
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fargate_agent.controlplane.access import keyring as keyring_module
from fargate_agent.controlplane.access.keyring import Keyring
from fargate_agent.controlplane.access.keys import ensure_keys, new_key, read_keys
from fargate_agent.controlplane.access.policy import Decision
from fargate_agent.controlplane.errors import StartError

SECRET = "s3cret-of-somebody"
NOW = datetime(2026, 11, 22, 7, 0, tzinfo=UTC)
POLICY = json.dumps({"Statement": {"Effect": "Allow", "Action": "ecs:List*", "Resource": "*"}})


def render_key(key_id: str, principal: str = "admin", more: str = "") -> str:
    return (
        f'[[key]]\naccess_key_id = "{key_id}"\nsecret_access_key = "{SECRET}"\n'
        f'principal = "{principal}"\n{more}\n'
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_file_of_before_goes_on_working(file: Path) -> None:
    file.write_text(render_key("A" * 20))

    key = read_keys(file)["A" * 20]

    assert key.is_active
    assert key.session_token is None
    assert key.policy.decide("ecs:RunTask", "*", {}) is Decision.ALLOWED


def test_keys_that_are_made_are_for_their_owner_alone(file: Path) -> None:
    keys = ensure_keys(file)

    assert sorted(key.principal for key in keys.values()) == ["admin", "agent"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_key_has_the_policy_of_its_principal(file: Path) -> None:
    file.write_text(render_key("A" * 20, "ci") + f"[principal.ci]\npolicy = '''{POLICY}'''\n")

    policy = read_keys(file)["A" * 20].policy

    assert policy.decide("ecs:ListTasks", "*", {}) is Decision.ALLOWED
    assert policy.decide("ecs:RunTask", "*", {}) is Decision.NOT_ALLOWED


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(
            render_key("A" * 20) + render_key("B" * 20, "ci"),
            ":9: key.1.principal: there is no such principal",
            id="principal without policy",
        ),
        pytest.param(
            render_key("A" * 20) + render_key("A" * 20),
            ":7: key.1.access_key_id: another key has the same id",
            id="same id twice",
        ),
        pytest.param(
            render_key("A" * 20) + "[principal.ci]\npolicy = '{\"Statement\": [{}]}'\n",
            ":7: principal.ci.policy: Statement[0]: Effect must be",
            id="wrong policy",
        ),
        pytest.param(
            render_key("A" * 20) + f"[principal.admin]\npolicy = '''{POLICY}'''\n",
            ":6: principal.admin: is built in",
            id="policy of what is built in",
        ),
        pytest.param(
            render_key("A" * 20, more='status = "Off"'), ":5: key.0.status: ", id="status"
        ),
        pytest.param(
            render_key("A" * 20, more="expires_at = 2026-11-22T07:00:00"),
            ":5: key.0.expires_at: ",
            id="time without zone",
        ),
        pytest.param(
            render_key("A" * 20, more='expires = "x"'), ":5: key.0.expires: unknown", id="unknown"
        ),
        pytest.param(render_key("A" * 20, more="x"), ":5: ", id="not TOML"),
        pytest.param("", "key: Field required", id="no keys"),
    ],
)
def test_fault_names_file_line_and_key_and_no_secret(file: Path, text: str, fault: str) -> None:
    file.write_text(text)

    with pytest.raises(StartError) as error:
        read_keys(file)

    assert str(error.value).startswith(str(file))
    assert fault in str(error.value)
    assert SECRET not in str(error.value)


def test_key_expires_at_its_time(file: Path) -> None:
    file.write_text(render_key("A" * 20, more=f"expires_at = {NOW.isoformat()}"))

    key = read_keys(file)["A" * 20]

    assert not key.has_expired(NOW - timedelta(seconds=1))
    assert key.has_expired(NOW)


@pytest.mark.parametrize(
    ("expires_at", "prefix", "has_token"),
    [
        pytest.param(None, "AKIA", False, id="permanent"),
        pytest.param(NOW, "ASIA", True, id="temporary"),
    ],
)
def test_new_key_looks_like_those_of_aws(
    expires_at: datetime | None, prefix: str, has_token: bool
) -> None:
    key = new_key("ci", NOW, expires_at)

    assert key["access_key_id"].startswith(prefix)
    assert len(key["access_key_id"]) == 20
    assert len(key["secret_access_key"]) == 40
    assert ("session_token" in key) is has_token


@pytest.fixture
def keyring(file: Path, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    """That looks at its file each time it is asked."""
    monkeypatch.setattr(keyring_module, "LOOK_EVERY_S", 0)
    file.write_text(render_key("A" * 20))
    return Keyring(file, read_keys(file))


async def test_keyring_notices_a_changed_file(keyring: Keyring, file: Path) -> None:
    await keyring.current()
    file.write_text(render_key("A" * 20) + render_key("B" * 20))

    assert list(await keyring.current()) == ["A" * 20, "B" * 20]


async def test_keyring_notices_what_changed_before_it_was_first_asked(
    keyring: Keyring, file: Path
) -> None:
    file.write_text(render_key("B" * 20))

    assert list(await keyring.current()) == ["B" * 20]


async def test_keyring_keeps_its_keys_when_the_file_becomes_wrong_and_says_so_once(
    keyring: Keyring, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await keyring.current()
    file.write_text("wrong")

    with caplog.at_level(logging.ERROR):
        found = [await keyring.current() for _ in range(3)]

    assert [list(keys) for keys in found] == [["A" * 20]] * 3
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith(f"{file}:1: ")


async def test_keyring_keeps_its_keys_when_the_file_goes_and_takes_it_when_it_returns(
    keyring: Keyring, file: Path
) -> None:
    await keyring.current()
    file.unlink()
    kept = await keyring.current()
    file.write_text(render_key("B" * 20))

    assert list(kept) == ["A" * 20]
    assert list(await keyring.current()) == ["B" * 20]


async def test_keyring_looks_at_its_file_once_in_a_while(
    keyring: Keyring, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "LOOK_EVERY_S", 3600)
    await keyring.current()
    file.write_text(render_key("B" * 20))

    assert list(await keyring.current()) == ["A" * 20]
