"""What `make purge` does with state that the settings put somewhere else."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ARN: Final = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/0123456789abcdef"

PURGE: Final = """
import sys
from pathlib import Path
from fargate_agent.installation import __main__ as installation
installation.SETTINGS = Path(sys.argv.pop(1))
installation.main()
"""
"""`python -m fargate_agent.installation` with another directory in place of /etc/fargate."""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Of an agent that was registered and has run tasks."""
    directory = tmp_path / "agent"
    for name in (
        *("records", "tasks", "spool", "logs/0123456789abcdef"),
        *("volumes/pgdata", "efs/fs-0123456789abcdef0", "ebs"),
    ):
        (directory / name).mkdir(parents=True)
    for name in ("lock", "secrets", "secrets.key", "registry-logins.json", "ebs/vol-0123.img"):
        (directory / name).touch()
    (directory / "container-instance-arn").write_text(ARN)
    (directory / "logs/0123456789abcdef/web.log").write_text("a line\n")
    return directory


@pytest.fixture
def purge(tmp_path: Path) -> Callable[..., list[str]]:
    """Run the verb with settings that have this state directory, and these of the control plane."""

    def run(state_dir: Path, control_plane: str = "") -> list[str]:
        agent = {
            "state_dir": state_dir,
            "containerd_address": tmp_path / "no.sock",
            "socket": tmp_path / "a.sock",
        }
        lines = "".join(f'{name} = "{value}"\n' for name, value in agent.items())
        (tmp_path / "agent.toml").write_text(lines)
        (tmp_path / "control-plane.toml").write_text(control_plane)
        done = subprocess.run(
            [sys.executable, "-c", PURGE, tmp_path, "purge"],
            env={"FARGATE_CONTROL_PLANE_CONFIG": str(tmp_path / "control-plane.toml")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert said.pop(0) == f"no containerd at {tmp_path}/no.sock: images are left alone"
        return said

    return run


def test_purge_removes_the_state_directory_of_the_settings(
    purge: Callable[..., list[str]], state_dir: Path
) -> None:
    assert purge(state_dir) == [f"removed {state_dir}"]
    assert not state_dir.exists()
    assert purge(state_dir) == []


def test_purge_removes_the_directory_in_which_loggers_asked(
    purge: Callable[..., list[str]], tmp_path: Path
) -> None:
    directory = tmp_path / "a.sock.loggers"
    directory.mkdir()
    (directory / "agent.sock").touch()

    assert purge(tmp_path / "gone") == []
    assert not directory.exists()


def test_purge_follows_a_link_to_the_state_directory(
    purge: Callable[..., list[str]], state_dir: Path
) -> None:
    link = state_dir.with_name("link")
    link.symlink_to(state_dir)

    assert purge(link) == [f"removed {state_dir}"]
    assert not state_dir.exists()


@pytest.mark.parametrize("name", ["theirs", "lost+found", "lock.old"])
def test_purge_keeps_a_directory_that_others_use_too(
    purge: Callable[..., list[str]], state_dir: Path, name: str
) -> None:
    (state_dir / name).touch()

    assert purge(state_dir) == [
        f"state of the agent stays in {state_dir}: {name} is not the agent's"
    ]
    assert (state_dir / "logs/0123456789abcdef/web.log").exists()


@pytest.mark.parametrize("text", [None, "something else"], ids=["no mark", "another mark"])
def test_purge_keeps_a_directory_that_no_agent_has_marked(
    purge: Callable[..., list[str]], state_dir: Path, text: str | None
) -> None:
    mark = state_dir / "container-instance-arn"
    mark.unlink() if text is None else mark.write_text(text)

    assert purge(state_dir) == [
        f"state of the agent stays in {state_dir}: it does not look like an agent's"
    ]
    assert (state_dir / "records").exists()


@pytest.mark.root
def test_purge_keeps_a_directory_in_which_something_is_mounted(
    purge: Callable[..., list[str]], state_dir: Path, tmp_path: Path
) -> None:
    code, mountpoint = tmp_path / "code", state_dir / "tasks/0123456789abcdef/host/v"
    code.mkdir()
    (code / "main").touch()
    mountpoint.mkdir(parents=True)
    subprocess.run(["mount", "--bind", code, mountpoint], check=True)
    try:
        said = purge(state_dir)
    finally:
        subprocess.run(["umount", mountpoint], check=True)

    assert said == [f"state of the agent stays in {state_dir}: {mountpoint} is mounted"]
    assert (code / "main").exists()
    assert (state_dir / "lock").exists()


def test_purge_says_what_stays_of_the_control_plane(
    purge: Callable[..., list[str]], tmp_path: Path
) -> None:
    control_plane = (
        f'state_dir = "{tmp_path}/plane"\n'
        'database = "postgresql+asyncpg://fargate:secret@127.0.0.1:5432/fargate"\n'
        'events_file = "/var/lib/fargate-control-plane/events.jsonl"\n'
    )

    assert purge(tmp_path / "gone", control_plane) == [
        f"state of the control plane: {tmp_path}/plane stays",
        f"keys of the control plane: {tmp_path}/plane/keys.toml stays",
        "state of the control plane stays in the database that its settings name",
    ]
