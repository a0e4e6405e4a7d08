import json
import os
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fargate_agent.cli.connection import parse_env
from fargate_agent.cli.keys.commands import find_keys_file
from fargate_agent.cli.keys.file import change_keys
from fargate_agent.cli.main import main
from fargate_agent.controlplane.access.keys import ensure_keys, new_key, read_keys
from fargate_agent.controlplane.access.policy import Decision

POLICY = json.dumps(
    {"Statement": [{"Effect": "Allow", "Action": "ecs:List*", "Resource": "*"}]}, indent=2
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The keys that a control plane makes when it starts for the first time."""
    file = tmp_path / "keys.toml"
    ensure_keys(file)
    return file


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.json"
    file.write_text(POLICY)
    return file


def key_of(file: Path, principal: str) -> str:
    return next(i for i, key in read_keys(file).items() if key.principal == principal)


def keys(file: Path, *arguments: str) -> int:
    return main(["keys", *arguments, "--keys-file", str(file)])


def test_create_prints_a_key_for_a_shell(
    file: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = keys(file, "create", "--principal", "ci", "--policy", str(policy))

    printed = parse_env(capsys.readouterr().out)
    made = read_keys(file)[printed["AWS_ACCESS_KEY_ID"]]
    assert code == 0
    assert made.principal == "ci"
    assert printed["AWS_SECRET_ACCESS_KEY"] == made.secret_access_key.get_secret_value()
    assert made.policy.decide("ecs:ListTasks", "*", {}) is Decision.ALLOWED
    assert set(printed) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_create_makes_a_temporary_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys(file, "create", "--principal", "admin", "--expires-in", "1h")

    printed = parse_env(capsys.readouterr().out)
    made = read_keys(file)[printed["AWS_ACCESS_KEY_ID"]]
    assert made.session_token is not None
    assert printed["AWS_SESSION_TOKEN"] == made.session_token.get_secret_value()
    assert made.expires_at is not None
    assert 3590 <= (made.expires_at - datetime.now(UTC)).total_seconds() <= 3600


def test_second_key_of_an_agent_needs_no_policy(file: Path) -> None:
    assert keys(file, "create", "--principal", "agent") == 0

    principals = [key.principal for key in read_keys(file).values()]
    assert principals == ["admin", "agent", "agent"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            ["--principal", "ci"], "there is no principal ci: make one with", id="unknown"
        ),
        pytest.param(
            ["--principal", "admin", "--policy", "{policy}"], "has a policy already", id="built in"
        ),
        pytest.param(
            ["--principal", "ci", "--policy", "{keys}"], "policy: not JSON", id="no policy"
        ),
        pytest.param(
            ["--principal", "a b", "--policy", "{policy}"], "'a b' can't be", id="no name"
        ),
        pytest.param(
            ["--principal", "admin", "--expires-in", "soon"], "must be a time such as", id="no time"
        ),
        pytest.param(
            ["--principal", "admin", "--expires-in", "9999999d"], "at most 3650d", id="too long"
        ),
    ],
)
def test_create_refuses_and_changes_nothing(
    arguments: list[str], said: str, file: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file.read_text()

    code = keys(file, "create", *(a.format(policy=policy, keys=file) for a in arguments))

    assert code != 0
    assert said in capsys.readouterr().err
    assert file.read_text() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["keys.toml", "policy.json"]


def test_ls_shows_keys_and_no_secrets(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys(file, "create", "--principal", "agent", "--expires-in", "7d")
    capsys.readouterr()

    keys(file, "ls")

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["KEY", "PRINCIPAL", "STATUS", "CREATED", "EXPIRES"]
    assert [line.split()[1:3] for line in lines[1:]] == [
        ["admin", "Active"],
        ["agent", "Active"],
        ["agent", "Active"],
    ]
    for key in read_keys(file).values():
        assert key.secret_access_key.get_secret_value() not in "".join(lines)


def test_ls_gives_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys(file, "ls", "--output", "json")

    shown = json.loads(capsys.readouterr().out)["keys"]
    assert [(key["key"], key["expires"]) for key in shown] == [
        (key_id, None) for key_id in read_keys(file)
    ]


def test_key_is_disabled_and_enabled_again(file: Path) -> None:
    key_id = key_of(file, "agent")

    keys(file, "disable", key_id)
    disabled = read_keys(file)[key_id].is_active
    keys(file, "enable", key_id)

    assert not disabled
    assert read_keys(file)[key_id].is_active


def test_key_is_removed(file: Path) -> None:
    key_id = key_of(file, "agent")

    assert keys(file, "rm", key_id) == 0

    assert key_id not in read_keys(file)


def test_rotated_key_has_another_secret_and_is_the_same_otherwise(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_id, before = key_of(file, "agent"), read_keys(file)

    code = keys(file, "rotate", key_id)

    printed, after = parse_env(capsys.readouterr().out), read_keys(file)
    secret = after[key_id].secret_access_key
    assert code == 0
    assert printed == {
        "AWS_ACCESS_KEY_ID": key_id,
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value(),
    }
    assert secret != before[key_id].secret_access_key
    assert after == {**before, key_id: replace(before[key_id], secret_access_key=secret)}


def test_temporary_key_is_not_rotated(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys(file, "create", "--principal", "agent", "--expires-in", "1h")
    key_id = parse_env(capsys.readouterr().out)["AWS_ACCESS_KEY_ID"]
    before = file.read_text()

    assert keys(file, "rotate", key_id) == 1

    assert f"{key_id} is temporary" in capsys.readouterr().err
    assert file.read_text() == before


@pytest.mark.parametrize("command", ["disable", "rm"])
@pytest.mark.parametrize(
    "other",
    [
        pytest.param([], id="alone"),
        pytest.param(["--expires-in", "1h"], id="beside one that expires"),
    ],
)
def test_last_key_of_an_admin_stays(
    command: str, other: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_id = key_of(file, "admin")
    if other:
        keys(file, "create", "--principal", "admin", *other)

    code = keys(file, command, key_id)

    assert code == 1
    assert "the last active key of principal admin" in capsys.readouterr().err
    assert read_keys(file)[key_id].is_active


def test_key_of_an_admin_goes_when_there_is_another(file: Path) -> None:
    key_id = key_of(file, "admin")
    keys(file, "create", "--principal", "admin")

    assert keys(file, "rm", key_id) == 0


@pytest.mark.parametrize("command", ["disable", "enable", "rotate", "rm"])
def test_unknown_key_is_named(command: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(file, command, "AKIAX") == 1

    assert "there is no key AKIAX" in capsys.readouterr().err


def test_policy_is_set_and_shown(
    file: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys(file, "policy", "ci", str(policy))

    keys(file, "policy", "ci")

    assert capsys.readouterr().out == f"{POLICY}\n"


def test_policy_of_an_agent_is_shown_and_can_not_be_set(
    file: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, refused = keys(file, "policy", "agent"), keys(file, "policy", "agent", str(policy))

    captured = capsys.readouterr()
    assert (shown, refused) == (0, 1)
    assert "ecs:Poll" in captured.out
    assert "is built in" in captured.err


def test_mode_and_owner_of_the_file_stay(file: Path) -> None:
    file.chmod(0o640)
    before = file.stat()

    keys(file, "create", "--principal", "agent")

    after = file.stat()
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_changes_wait_for_each_other(file: Path) -> None:
    change = threading.Thread(target=keys, args=(file, "create", "--principal", "agent"))

    with change_keys(file) as document:
        change.start()
        change.join(0.2)
        has_waited = change.is_alive()
        document["key"].append(new_key("agent", datetime.now(UTC)))
    change.join(10)

    assert has_waited
    assert len(read_keys(file)) == 4


def test_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(tmp_path / "keys.toml", "ls") == 1
    assert keys(tmp_path / "no" / "keys.toml", "create", "--principal", "admin") == 1

    errors = capsys.readouterr().err.splitlines()
    assert all(error.endswith("the control plane makes it when it starts") for error in errors)


def test_faulty_file_is_not_written(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(file.read_text() + 'status = "Off"\n')
    before = file.read_text()

    assert keys(file, "create", "--principal", "agent") == 1

    assert f"{file}:" in capsys.readouterr().err
    assert file.read_text() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_somebody_else_is_told_whose_file_it_is(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.chown(file, 1, 1)
    os.seteuid(65534)
    try:
        code = keys(file, "ls")
    finally:
        os.seteuid(0)

    assert code == 1
    assert "only root and " in capsys.readouterr().err


def test_both_places_can_not_be_given(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(file, "ls", "--state-dir", str(file.parent)) == 2

    assert "can't be given together" in capsys.readouterr().err


def test_stack_is_found_by_its_state_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure_keys(tmp_path / "control-plane" / "keys.toml")

    assert main(["keys", "ls", "--state-dir", str(tmp_path)]) == 0

    assert "admin" in capsys.readouterr().out


def test_keys_are_those_of_the_stack_to_which_the_environment_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").touch()
    monkeypatch.setenv("FARGATE_AGENT_SOCKET", str(tmp_path / "run" / "agent.sock"))

    assert find_keys_file(None) == tmp_path / "control-plane" / "keys.toml"


def test_default_stack_comes_before_the_service_when_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "control-plane.toml"
    settings.write_text('keys_file = "/somewhere/keys.toml"\n')
    monkeypatch.setenv("FARGATE_CONTROL_PLANE_CONFIG", str(settings))

    without = find_keys_file(None, tmp_path)
    (tmp_path / "env").write_text("export AWS_ENDPOINT_URL_ECS=http://127.0.0.1:1\n")
    ready = find_keys_file(None, tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", "http://127.0.0.1:2")
    other_is_meant = find_keys_file(None, tmp_path)

    assert without == other_is_meant == Path("/somewhere/keys.toml")
    assert ready == tmp_path / "control-plane" / "keys.toml"
