"""What keeps an agent from working here, in the words of the one line that the operator reads."""

from pathlib import Path

import pytest

from fargate_agent.drivers import LoggerUser
from fargate_agent.preconditions import (
    AgentError,
    check_settings,
    find_key_file,
    find_logger_user,
    require_containerd,
)
from fargate_agent.settings import AgentSettings

ADDRESS = Path("/run/containerd/containerd.sock")


@pytest.mark.parametrize(
    "version", ["1.6.0", "v1.6.20", "1.6.20~ds1", "1.7.2", "2.0.0-rc.1", "v2.1", "1.10.0", "devel"]
)
def test_containerd_is_new_enough(version: str) -> None:
    require_containerd(version, ADDRESS)


@pytest.mark.parametrize("version", ["1.5.18", "v1.4.13~ds1", "0.2.9", "1.5"])
def test_older_containerd_is_refused_with_both_versions(version: str) -> None:
    with pytest.raises(AgentError) as error:
        require_containerd(version, ADDRESS)

    assert str(error.value) == (
        f"containerd {version} at {ADDRESS} is too old: 1.6 or newer is needed"
    )


def test_agent_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)

    with pytest.raises(AgentError, match="no key for the control plane: set key_file"):
        check_settings(AgentSettings())


@pytest.mark.parametrize(
    ("name", "user"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("nobody", LoggerUser(uid=65534, gid=65534), id="name"),
        pytest.param("12:34", LoggerUser(uid=12, gid=34), id="numbers"),
    ],
)
def test_loggers_run_as_a_user_by_name_or_numbers(
    name: str | None, user: LoggerUser | None
) -> None:
    assert find_logger_user(name) == user


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("nosuch", "logger_user: there is no user nosuch", id="unknown"),
        pytest.param("root", "logger_user: root has the rights of root", id="root"),
    ],
)
def test_user_of_loggers_that_cannot_be_is_refused(name: str, text: str) -> None:
    with pytest.raises(AgentError) as error:
        find_logger_user(name)

    assert str(error.value) == text


def test_key_of_the_file_will_do(tmp_path: Path) -> None:
    file = tmp_path / "key.toml"
    file.write_text('access_key_id = "AKIA"\nsecret_access_key = "s"\n')

    check_settings(AgentSettings(key_file=file))


def test_old_name_of_a_setting_is_said_with_the_new_one(caplog: pytest.LogCaptureFixture) -> None:
    settings = AgentSettings(access_key_id="AKIA", secret_access_key="s", cluster="prod")

    check_settings(settings)

    assert 'write clusters = ["prod"], or remove the setting' in caplog.text


def test_key_file_that_is_not_read_may_be_missing() -> None:
    settings = AgentSettings(
        key_file=Path("/nowhere/key.toml"), access_key_id="AKIA", secret_access_key="s"
    )

    check_settings(settings)

    assert find_key_file(settings) is None


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
def test_cgroup_driver_that_the_host_has_not_is_refused() -> None:
    settings = AgentSettings(cgroup_driver="systemd", access_key_id="AKIA", secret_access_key="s")

    with pytest.raises(AgentError, match="cgroup_driver is 'systemd', but systemd doesn't run"):
        check_settings(settings)
