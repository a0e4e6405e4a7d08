import grp
import os
from pathlib import Path

import pytest

from fargate_agent.cli.connection import parse_env
from fargate_agent.cli.failure import CliError
from fargate_agent.controlplane.access.keys import ensure_keys
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.installation.first_keys import write_client_files
from fargate_agent.settings import read_key_file

GROUP = grp.getgrgid(os.getegid()).gr_name
SOCKET = Path("/run/fargate-agent/agent.sock")


@pytest.fixture
def settings(tmp_path: Path) -> ControlPlaneSettings:
    """Of a control plane that was started once."""
    settings = ControlPlaneSettings(state_dir=tmp_path / "state", region="eu-west-1")
    ensure_keys(settings.keys_path)
    return settings


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    return directory


def write(etc: Path, settings: ControlPlaneSettings) -> list[str]:
    return [file.name for file in write_client_files(etc, settings, SOCKET, GROUP)]


def test_agent_and_command_line_get_their_own_key(
    etc: Path, settings: ControlPlaneSettings
) -> None:
    write(etc, settings)

    by_principal = {key.principal: key for key in ensure_keys(settings.keys_path).values()}
    agent, env = read_key_file(etc / "agent-key.toml"), parse_env((etc / "env").read_text())
    assert agent.access_key_id == by_principal["agent"].access_key_id
    assert agent.secret_access_key == by_principal["agent"].secret_access_key.get_secret_value()
    admin = by_principal["admin"]
    assert env == {
        "AWS_ENDPOINT_URL_ECS": "http://127.0.0.1:51680",
        "AWS_ENDPOINT_URL_EC2": "http://127.0.0.1:51680",
        "AWS_ENDPOINT_URL_SERVICEDISCOVERY": "http://127.0.0.1:51680",
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_ACCESS_KEY_ID": admin.access_key_id,
        "AWS_SECRET_ACCESS_KEY": admin.secret_access_key.get_secret_value(),
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "FARGATE_AGENT_SOCKET": str(SOCKET),
    }


def test_only_the_group_can_read_the_variables_and_nobody_the_agent_s_key(
    etc: Path, settings: ControlPlaneSettings
) -> None:
    write(etc, settings)

    assert (etc / "agent-key.toml").stat().st_mode & 0o777 == 0o600
    assert (etc / "env").stat().st_mode & 0o777 == 0o640
    assert (etc / "env").stat().st_gid == os.getegid()


def test_what_is_right_is_left_alone(etc: Path, settings: ControlPlaneSettings) -> None:
    assert write(etc, settings) == ["agent-key.toml", "env"]

    assert write(etc, settings) == []


def test_new_keys_and_another_mode_are_put_right(etc: Path, settings: ControlPlaneSettings) -> None:
    write(etc, settings)
    (etc / "env").chmod(0o644)

    assert write(etc, settings) == ["env"]

    settings.keys_path.unlink()
    ensure_keys(settings.keys_path)

    assert write(etc, settings) == ["agent-key.toml", "env"]


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [
        ("http://0.0.0.0:6000", "http://127.0.0.1:6000"),
        ("http://192.0.2.7:6000", "http://192.0.2.7:6000"),
        ("http://127.0.0.1:0", "http://127.0.0.1:40123"),
    ],
)
def test_endpoint_follows_where_the_control_plane_listens(
    etc: Path, settings: ControlPlaneSettings, listen: str, endpoint: str
) -> None:
    (settings.state_dir / "endpoint").write_text("http://127.0.0.1:40123")

    write(etc, settings.model_copy(update={"listen": listen}))

    assert parse_env((etc / "env").read_text())["AWS_ENDPOINT_URL_ECS"] == endpoint


def test_before_the_first_start_there_is_nothing_to_write(etc: Path, tmp_path: Path) -> None:
    settings = ControlPlaneSettings(state_dir=tmp_path)

    with pytest.raises(CliError, match=r"keys.toml: not there; the control plane makes it"):
        write(etc, settings)
    assert not list(etc.iterdir())


def test_unknown_group_is_named(etc: Path, settings: ControlPlaneSettings) -> None:
    with pytest.raises(CliError, match="there is no group no-such-group"):
        write_client_files(etc, settings, SOCKET, "no-such-group")
    assert not list(etc.iterdir())


def test_keys_that_make_no_sense_are_not_repeated(
    etc: Path, settings: ControlPlaneSettings
) -> None:
    settings.keys_path.write_text('[[key]]\nsecret_access_key = "do-not-tell"\n')

    with pytest.raises(CliError) as caught:
        write(etc, settings)
    assert "do-not-tell" not in str(caught.value)
