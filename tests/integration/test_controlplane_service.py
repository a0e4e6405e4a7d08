"""The control plane as a service: what it tells systemd, and with which exit code it refuses."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.controlplane import ControlPlaneProcess

DEADLINE_S = 20.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The end of the socket that systemd would have."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(str(tmp_path / "notify"))
        opened.settimeout(DEADLINE_S)
        yield opened


def run(tmp_path: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FARGATE_")}
    return subprocess.run(
        [sys.executable, "-m", "fargate_agent.controlplane", *options],
        env={**environment, "FARGATE_CONTROL_PLANE_STATE_DIR": str(tmp_path / "state"), **settings},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_ready_watchdog_and_stopping_are_told(tmp_path: Path, manager: socket.socket) -> None:
    control_plane = ControlPlaneProcess(tmp_path / "state")
    try:
        plane = control_plane.start(
            NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC=str(300_000)
        )
        said = [manager.recv(4096).decode() for _ in range(4)]
        code = control_plane.terminate(signal.SIGTERM)
        while said[-1] != "STOPPING=1":
            said.append(manager.recv(4096).decode())
    finally:
        control_plane.close()

    ready = "READY=1\nWATCHDOG_USEC=300000\nWATCHDOG=1"
    assert said[:4] == [f"STATUS=serving {plane.url}", ready, "WATCHDOG=1", "WATCHDOG=1"]
    assert code == 0


@pytest.mark.parametrize(
    ("text", "code", "complaint"),
    [
        pytest.param('cluster = "c"\n', 0, "", id="right"),
        pytest.param(
            'cluster = "c"\nlisten_on = 1\n', os.EX_CONFIG, ":2: listen_on: unknown", id="wrong"
        ),
    ],
)
def test_check_says_whether_the_settings_are_right(
    tmp_path: Path, text: str, code: int, complaint: str
) -> None:
    file = tmp_path / "control-plane.toml"
    file.write_text(text)

    done = run(tmp_path, "--check", "--config", str(file))

    assert done.returncode == code
    assert complaint in done.stderr
    assert not (tmp_path / "state").exists()


def test_wrong_option_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", "--listen", "http://nowhere")

    assert done.returncode == os.EX_CONFIG
    assert done.stderr == "fargate-control-plane: --listen: the port is missing\n"


def test_port_in_use_is_tried_again_by_systemd(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        done = run(tmp_path, "--listen", f"http://127.0.0.1:{other.getsockname()[1]}")

    assert done.returncode == os.EX_TEMPFAIL
    assert "in use" in done.stderr
    assert done.stderr.count("\n") == 1
