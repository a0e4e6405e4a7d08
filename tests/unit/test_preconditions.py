"""What keeps an agent from working here, in the words of the one line that the operator reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent import preconditions
from fargate_agent.drivers import LoggerUser
from fargate_agent.preconditions import (
    AgentError,
    check_settings,
    find_key_file,
    find_logger_user,
    find_runtime,
    hold_state_dir,
    read_for_start,
    require_containerd,
    require_snapshotter,
    tell_old_names,
)
from fargate_agent.runtime.cgroup import Cgroups
from fargate_agent.settings import AgentSettings
from fargate_agent.settings_file import SettingsError

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


@pytest.mark.parametrize("made", [pytest.param(True, id="older"), pytest.param(False, id="new")])
def test_nobody_else_gets_into_the_state_directory(tmp_path: Path, made: bool) -> None:
    state = tmp_path / "state"
    names = ("logs", "records", "spool", "tasks")
    if made:
        for name in names:
            (state / name).mkdir(parents=True)
            (state / name).chmod(0o755)
        state.chmod(0o755)

    with hold_state_dir(state):
        directories = [state, *(path for path in state.iterdir() if path.is_dir())]

    assert sorted(path.name for path in directories) == [*names[:3], "state", names[3]]
    assert {path.stat().st_mode & 0o777 for path in directories} == {0o700}


def test_containerd_without_the_snapshotter_is_refused() -> None:
    found = {"overlayfs": None, "zfs": "skip plugin"}

    require_snapshotter("overlayfs", found, ADDRESS)
    with pytest.raises(AgentError, match="has no btrfsx, it has: overlayfs, zfs"):
        require_snapshotter("btrfsx", found, ADDRESS)
    with pytest.raises(AgentError, match="zfs did not load in containerd at .*: skip plugin"):
        require_snapshotter("zfs", found, ADDRESS)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings that are right, with a containerd that isn't there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "agent.toml"
    path.write_text(f'containerd_address = "{tmp_path}/containerd.sock"\n')
    return path


def add(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


KEY = 'access_key_id = "AKIA"\nsecret_access_key = "s"\n'


def refusal(file: Path) -> list[str]:
    with pytest.raises(SettingsError) as error:
        check_settings(file)
    return str(error.value).splitlines()


def test_agent_without_a_key_is_refused(file: Path) -> None:
    for check in (check_settings, read_for_start):
        with pytest.raises(SettingsError, match=": key_file: no key for the control plane: set"):
            check(file)


@pytest.mark.parametrize("half", KEY.splitlines())
def test_half_a_key_is_refused(file: Path, half: str) -> None:
    add(file, half)

    assert "one of them is missing" in refusal(file)[0]


def test_key_of_the_environment_will_do(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")

    check_settings(file)


def test_everything_that_is_wrong_is_named_at_once_without_a_key_too(
    file: Path, tmp_path: Path
) -> None:
    (tmp_path / "a-file").touch()
    for line in (
        'control_plane = "127.0.0.1:51680"\n',
        'registry_auth_file = "/nope"\n',
        'aws_credentials_file = "/nope"\n',
        'region = "x y"\n',
        'log_host_paths = ["dev"]\n',
        'snapshotter = "btrfsx"\n',
        f'state_dir = "{tmp_path}/a-file/state"\n',
        f'shim_loggers_dir = "{tmp_path}"\n',
        'socket_group = "nosuch"\n',
    ):
        add(file, line)

    said = refusal(file)

    assert len(said) == len({line.split(": ")[1] for line in said}) + 1  # two loggers are missing
    assert {line.split(": ")[0].rpartition(":")[2] for line in said if f"{file}:" in line} == {
        *map(str, range(2, 11)),
        str(file),
    }
    assert {line.split(": ")[1].partition(".")[0] for line in said} == {
        "control_plane",
        "registry_auth_file",
        "aws_credentials_file",
        "region",
        "log_host_paths",
        "snapshotter",
        "state_dir",
        "shim_loggers_dir",
        "socket_group",
        "key_file",
    }


@pytest.mark.parametrize("separator", [",", ":", "\\"])
def test_state_directory_that_no_overlay_can_name_is_refused(
    file: Path, tmp_path: Path, separator: str
) -> None:
    state = f"state_dir = '{tmp_path}/a{separator}b'\n"
    add(file, KEY + state)

    (said,) = refusal(file)

    assert f"state_dir: must not contain {separator}, which separates the options" in said
    add(file, 'snapshotter = "native"\n')
    check_settings(file)


def test_paths_that_only_tasks_need_keep_no_agent_from_starting(file: Path) -> None:
    add(file, KEY + 'registry_auth_file = "/nope"\naws_credentials_file = "/nope"\n')

    read_for_start(file)
    assert len(refusal(file)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("not json", "not JSON", id="no JSON"),
        pytest.param('{"auths": []}', "'auths' is not an object", id="list"),
        pytest.param('{"auths": {"r": {"auth": "%"}}}', "'auth' is not base64", id="entry"),
        pytest.param(
            '{"credsStore": "none"}',
            "credsStore: there is no program docker-",
            id="store",
        ),
        pytest.param(
            '{"credHelpers": {"r": "none"}}',
            "r: there is no program docker-",
            id="helper",
        ),
        pytest.param('{"credsStore": "../x"}', "can't be the end of a program's name", id="path"),
    ],
)
def test_registry_credentials_that_cannot_be_used_are_named(
    file: Path, tmp_path: Path, text: str, said: str
) -> None:
    auth = tmp_path / "auth.json"
    auth.write_text(text)
    add(file, f'{KEY}registry_auth_file = "{auth}"\n')

    (line,) = refusal(file)

    assert f"{file}:4: registry_auth_file: {auth}: " in line
    assert said in line


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        pytest.param("[default]\naws_access_key_id = A\n", 0o600, "has no aws_secret", id="half"),
        pytest.param("[other]\naws_access_key_id = A\n", 0o600, "has no aws_access", id="profile"),
        pytest.param("[default]\n", 0o644, "can be read by others", id="mode"),
    ],
)
def test_credentials_of_the_machine_that_cannot_be_used_are_named(
    file: Path, tmp_path: Path, text: str, mode: int, said: str
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(text)
    credentials.chmod(mode)
    add(file, f'{KEY}aws_credentials_file = "{credentials}"\n')

    (line,) = refusal(file)

    assert f"{file}:4: aws_credentials_file: {said}" in line


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


def test_key_of_the_file_will_do(file: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.toml"
    key.write_text(KEY)
    add(file, f'key_file = "{key}"\n')

    check_settings(file)


def test_old_name_of_a_setting_is_said_with_the_new_one(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(file, KEY + 'cluster = "prod"\n')

    check_settings(file)

    assert 'write clusters = ["prod"], or remove the setting' in caplog.text


def test_key_file_that_is_wrong_is_named_with_both_places(file: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.toml"
    key.write_text('access_key_id = "AKIA"\n')
    add(file, f'key_file = "{key}"\n')

    assert refusal(file) == [f"{file}:2: key_file: {key}: secret_access_key: Field required"]


def test_value_that_is_wrong_is_complained_about_once(file: Path) -> None:
    add(file, 'key_file = "rel"\n')

    assert refusal(file) == [f"{file}:2: key_file: must be an absolute path, without .."]


def test_key_file_that_is_not_read_may_be_missing(file: Path) -> None:
    add(file, KEY + 'key_file = "/nowhere/key.toml"\n')

    assert find_key_file(check_settings(file)) is None


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
def test_cgroup_driver_that_the_host_has_not_is_refused(file: Path) -> None:
    add(file, KEY + 'cgroup_driver = "systemd"\n')

    assert "cgroup_driver is 'systemd', but systemd doesn't run" in refusal(file)[0]


def test_oci_runtime_that_is_not_there_is_refused(file: Path) -> None:
    add(file, KEY + 'oci_runtime = "no-such-runtime"\n')

    assert refusal(file) == [f"{file}:4: oci_runtime: there is no program no-such-runtime"]


def test_crun_is_refused_where_cgroup_v1_is_beside_v2(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = file.with_name("crun")
    program.touch(0o755)
    (tmp_path / "cgroup.controllers").touch()
    found = Cgroups(trees=(tmp_path,), controllers={}, unified=False)
    monkeypatch.setattr(preconditions, "read_cgroups", lambda: found)
    add(file, KEY + f'oci_runtime = "{program}"\n')

    assert refusal(file) == [
        f"{file}:4: oci_runtime: crun needs a host without cgroup v1, which this one has beside v2"
    ]
    for other in (replace(found, unified=True), replace(found, trees=())):
        monkeypatch.setattr(preconditions, "read_cgroups", lambda other=other: other)
        assert find_runtime(check_settings(file)) == str(program)


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [
        pytest.param({"aws_credentials_file": Path("/keys")}, True, id="keys"),
        pytest.param({"assume_roles": False}, True, id="as they are"),
        pytest.param({"aws_endpoint_url": "http://127.0.0.1:1"}, False, id="endpoint"),
    ],
)
def test_agent_that_is_to_assume_roles_is_told_who_does(
    settings: dict[str, Any], is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tell_old_names(AgentSettings(**settings))

    assert ("the control plane assumes roles, and no agent does" in caplog.text) is is_told
