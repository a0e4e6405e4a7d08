"""`fargate-control-plane --check`: everything that can't work is named at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.setting_faults import check_settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("FARGATE_CONTROL_PLANE_"):
            monkeypatch.delenv(name)
    return tmp_path / "control-plane.toml"


def refusal(file: Path, text: str, listen: str | None = None) -> list[str]:
    file.write_text(text)
    with pytest.raises(StartError) as error:
        check_settings(file, listen)
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        pytest.param('listen = "127.0.0.1:51680"', "listen: must be http://HOST:PORT", id="URL"),
        pytest.param('listen = "http://127.0.0.1"', "listen: the port is missing", id="no port"),
        pytest.param('listen = "http://192.0.2.1:80"', "listen: 192.0.2.1 can't be", id="not ours"),
        pytest.param('listen = "http://a..example:80"', "listen: its host is neither", id="name"),
        pytest.param('state_dir = "rel"', "state_dir: must be an absolute path", id="relative"),
        pytest.param('keys_file = "keys.toml"', "keys_file: must be an absolute", id="keys"),
        pytest.param('keys_file = "/dev/null/k"', "keys_file: /dev/null is not", id="no dir"),
        pytest.param('events_file = "/nope/e"', "events_file: there is no dir", id="events"),
        pytest.param('events_file = "/tmp"', "events_file: /tmp is a directory", id="events dir"),
        pytest.param('state_dir = "/dev/null/x"', "state_dir: /dev/null is not", id="no state"),
        pytest.param('region = "x y"', "region: must be a region", id="region"),
        pytest.param('account = "12"', "account: must have 12 digits", id="account"),
        pytest.param('cluster = "a b"', "cluster: must have 1 to 255", id="cluster"),
        pytest.param('relaxed_clusters = ["a/b"]', "relaxed_clusters.0: must have", id="relaxed"),
        pytest.param('vpc_id = "mine"', "vpc_id: must be vpc- and", id="VPC"),
        pytest.param("agent_grace_s = nan", "agent_grace_s: Input should be", id="no number"),
        pytest.param("heartbeat_s = inf", "heartbeat_s: Input should be", id="for ever"),
        pytest.param(
            "agent_read_timeout_s = 10", "agent_read_timeout_s: is 10 and must be", id="impatient"
        ),
        pytest.param(f"history_retention_s = {'9' * 20}", "history_retention_s: ", id="age"),
    ],
)
def test_value_that_cannot_work_is_told_what_it_must_be(text: str, rule: str, file: Path) -> None:
    (said,) = refusal(file, text)

    assert said.startswith(f"{file}:1: {rule}")


def test_all_faults_are_named_at_once_each_with_its_place(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text("key = 1\n")
    monkeypatch.setenv("FARGATE_CONTROL_PLANE_REGION", "nowhere")
    monkeypatch.setenv("FARGATE_CONTROL_PLANE_SUBNETS", "not json")

    said = refusal(
        file,
        f'regoin = "x"\nstate_dir = "{tmp_path}"\nevents_file = "/nope/e"\naccount = "1"\n'
        '[[subnets]]\nid = "a"\ncidr = "10.0.0.0/30"\n',
        listen="http://127.0.0.1:x",
    )

    assert [line.partition(": Input")[0] for line in sorted(said)] == [
        "--listen: must be http://HOST:PORT",
        f"{file}: keys_file: {keys}:1: key",
        f"{file}:1: regoin: unknown setting; did you mean region?",
        f"{file}:3: events_file: there is no directory /nope",
        f"{file}:4: account: must have 12 digits",
        "environment: FARGATE_CONTROL_PLANE_REGION: must be a region such as us-east-1",
        "environment: FARGATE_CONTROL_PLANE_SUBNETS: must be JSON",
    ]


def test_settings_that_can_work_are_taken_with_a_port_that_is_in_use(file: Path) -> None:
    file.write_text('relaxed_clusters = ["a"]\nlisten = "http://localhost:0"\n')

    check_settings(file, None)
    check_settings(file, "http://127.0.0.1:51680")


@pytest.mark.parametrize("program", ["fargate-agent", "fargate-control-plane"])
def test_programs_say_each_fault_on_a_line_and_exit_with_78(program: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('region = "x y"\nstate_dir = "rel"\nzzz = 1\n')
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FARGATE_", "AWS_"))}

    done = subprocess.run(
        [Path(sys.executable).with_name(program), "--check", "--config", file],
        env={**environment, "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78
    assert done.stdout == ""
    assert sorted(done.stderr.splitlines()) == [
        f"{program}: {file}:1: region: must be a region such as us-east-1",
        f"{program}: {file}:2: state_dir: must be an absolute path, without ..",
        f"{program}: {file}:3: zzz: unknown setting",
    ]


def test_file_that_the_agent_was_asked_to_read_must_be_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("fargate-agent"), "--config", tmp_path / "none.toml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78
    assert done.stderr == f"fargate-agent: {tmp_path}/none.toml: no such file\n"


@pytest.mark.parametrize(
    ("text", "mode", "setting", "fault"),
    [
        pytest.param(
            "[default]\naws_access_key_id = AK\naws_secret_access_key = hush\n",
            0o644,
            "",
            "aws_credentials_file: can be read by others than its owner: chmod 600",
            id="mode",
        ),
        pytest.param(
            "hush",
            0o600,
            'aws = "real"',
            "aws_credentials_file: is not a credentials file",
            id="none",
        ),
        pytest.param(
            "[default]\n",
            0o600,
            'aws = "local"\nlocal_roles = { app = { profile = "dev" } }',
            "local_roles: app: profile dev: aws_credentials_file has no aws_access_key_id in "
            "profile dev",
            id="profile",
        ),
    ],
)
def test_keys_that_can_not_be_used_are_named_without_them(
    text: str, mode: int, setting: str, fault: str, file: Path
) -> None:
    keys = file.with_name("keys")
    keys.write_text(text)
    keys.chmod(mode)

    said = refusal(file, f'aws_credentials_file = "{keys}"\n{setting}\n')

    assert [line.partition(": ")[2] for line in said] == [fault]
    assert "hush" not in "".join(said)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_keys_that_root_can_read_and_the_service_can_not_are_named(file: Path) -> None:
    keys, state = file.with_name("keys"), file.with_name("state")
    keys.write_text("[default]\naws_access_key_id = AK\naws_secret_access_key = hush\n")
    keys.chmod(0o600)
    state.mkdir()
    os.chown(state, 12345, 12345)
    text = f'aws_credentials_file = "{keys}"\nstate_dir = "{state}"\nlisten = "http://127.0.0.1:0"'

    (said,) = refusal(file, text)
    os.chown(keys, 12345, 12345)
    check_settings(file, None)

    assert said == (
        f"{file}:1: aws_credentials_file: can't be read by the control plane's user: "
        f"chown 12345 {keys}"
    )
