"""The agent as a service: what it tells systemd, how it reloads, and which second agent it refuses.

The test is systemd here: it has the other end of the socket.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_restart import process_of
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import wait_for
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, Stack, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

WATCHDOG_S = 3


class Manager:
    """Keeps what a service has said."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self.said: list[str] = []

    def has(self, text: str) -> bool:
        while True:
            try:
                self.said += self._socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return any(text in line for line in self.said)

    def wait_for(self, text: str) -> None:
        wait_for(lambda: self.has(text), text, DEADLINE_S)

    def stays_without(self, text: str, seconds: float) -> bool:
        """Whether nothing of the kind is said for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.has(text):
                return False
            select.select([self._socket], [], [], end - time.monotonic())
        return not self.has(text)

    def forget(self) -> None:
        self.has("")
        self.said.clear()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.bind(str(tmp_path / "notify"))
        yield Manager(opened)


@pytest.fixture
async def service(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    manager: Manager,
) -> AsyncIterator[Stack]:
    """The programs, with an agent that is watched."""
    settings = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": str(WATCHDOG_S * 1_000_000),
    }
    async with make_stack(tmp_path, private_containerd, outside, **settings) as made:
        yield made


def run_agent(stack: Stack, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run another agent, with the settings of the first but for some, to its end."""
    program = Path(sys.executable).parent / "fargate-agent"
    return subprocess.run(
        [program, *options],
        env={**os.environ, **stack.agent.environment, **settings},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


async def test_ready_is_said_when_a_task_can_be_started_and_stopping_at_the_end(
    service: Stack, manager: Manager
) -> None:
    manager.wait_for("READY=1")
    manager.wait_for("STATUS=connected to the control plane; tasks: 0")
    waiting = [line for line in manager.said if line.startswith("STATUS=waiting")]

    assert waiting[0].startswith("STATUS=waiting for containerd at ")
    assert waiting[1].startswith("STATUS=waiting for the control plane at ")
    assert manager.said.index(waiting[1]) < manager.said.index("READY=1")
    assert service.agent.end() == 0
    manager.wait_for("STOPPING=1")


async def test_agent_waits_for_the_control_plane_and_asks_for_time(
    service: Stack, manager: Manager
) -> None:
    service.agent.end()
    service.control_plane.kill()
    manager.forget()

    service.agent.start()
    manager.wait_for("STATUS=waiting for the control plane")
    manager.wait_for("EXTEND_TIMEOUT_USEC=")

    assert not manager.has("READY=1")


async def test_agent_whose_key_is_refused_says_so(service: Stack, manager: Manager) -> None:
    service.agent.end()
    manager.forget()
    service.agent.environment["FARGATE_AGENT_SECRET_ACCESS_KEY"] = "another"

    service.agent.start()
    manager.wait_for("InvalidSignatureException")

    status = next(line for line in manager.said if "InvalidSignatureException" in line)
    assert status.startswith("STATUS=waiting for the control plane at ")


async def test_watchdog_is_fed_while_containerd_answers_and_not_while_it_is_away(
    service: Stack, manager: Manager
) -> None:
    manager.wait_for("READY=1")
    manager.forget()
    manager.wait_for("WATCHDOG=1")

    service.containerd.stop()
    try:
        wait_for(
            lambda: service.agent.wrote("systemd restarts this program"), "a warning", DEADLINE_S
        )
        manager.forget()
        assert manager.stays_without("WATCHDOG=1", WATCHDOG_S)  # three times the usual pause
    finally:
        service.containerd.start()
    manager.wait_for("WATCHDOG=1")


async def test_reload_reads_the_settings_again_and_tasks_go_on(
    service: Stack, registry: FakeRegistry, manager: Manager
) -> None:
    arn = service.run(tool("main", "exec sleep 1000"))
    await service.wait_for(arn, "RUNNING")
    process, agent = process_of(service, arn), service.agent.pid
    manager.forget()
    config = service.root / "agent.toml"

    config.write_text('cluster = "default"\nlog_levle = "debug"\n')
    os.kill(agent, signal.SIGHUP)
    wait_for(
        lambda: service.agent.wrote(f"{config}:2: log_levle: unknown setting"), "it", DEADLINE_S
    )
    assert not manager.has("RELOADING=1")

    config.write_text('log_level = "debug"\n')
    os.kill(agent, signal.SIGHUP)
    manager.wait_for("RELOADING=1")
    manager.wait_for("READY=1")

    assert service.agent.pid == agent
    assert Path(f"/proc/{agent}").exists()
    assert service.agent.wrote("DEBUG")
    assert process_of(service, arn) == process
    service.stop(arn)
    await service.wait_for(arn, "STOPPED")
    assert service.leftovers(arn) == []


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        pytest.param("STATE_DIR", "works with {root}/agent.sock", id="same socket"),
        pytest.param("SOCKET", "another agent works in {root}/agent", id="same state"),
        pytest.param("", "works with containerd namespace {namespace}", id="same containerd"),
    ],
)
async def test_second_agent_is_refused_in_one_line(
    stack: Stack, setting: str, complaint: str, tmp_path: Path
) -> None:
    own = {"STATE_DIR": str(tmp_path / "other"), "SOCKET": str(tmp_path / "other.sock")}
    if setting == "STATE_DIR":
        del own["SOCKET"]
    elif setting == "SOCKET":
        del own["STATE_DIR"]

    done = run_agent(stack, **{f"FARGATE_AGENT_{name}": value for name, value in own.items()})

    assert done.returncode == os.EX_CONFIG
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fargate-agent: another agent")
    assert complaint.format(root=stack.root, namespace=stack.namespace) in last
    if setting != "SOCKET":
        assert f"process {stack.agent.pid}" in last


async def test_agent_of_another_namespace_of_the_same_containerd_is_welcome(
    stack: Stack, tmp_path: Path, private_containerd: PrivateContainerd, outside: tuple[Path, str]
) -> None:
    root = tmp_path / "second"
    root.mkdir()

    async with make_stack(root, private_containerd, outside) as second:
        assert second.agent.wrote("connected to")


@pytest.mark.parametrize(
    ("text", "settings", "complaint"),
    [
        pytest.param("", {}, None, id="right"),
        pytest.param(
            "regoin = 1",
            {},
            "agent.toml:1: regoin: unknown setting; did you mean region?",
            id="key",
        ),
        pytest.param(
            'socket_group = "nobody-knows-it"',
            {},
            "socket_group: there is no group nobody-knows-it",
            id="group",
        ),
        pytest.param(
            'key_file = "/nowhere/key.toml"',
            {"FARGATE_AGENT_ACCESS_KEY_ID": "", "FARGATE_AGENT_SECRET_ACCESS_KEY": ""},
            "/nowhere/key.toml: No such file or directory",
            id="key file",
        ),
        pytest.param(
            'cgroup_driver = "systemd"',
            {},
            "cgroup_driver is 'systemd', but systemd doesn't run on this host",
            id="cgroup driver",
            marks=pytest.mark.skipif(
                Path("/run/systemd/system").exists(), reason="systemd runs here"
            ),
        ),
        pytest.param('key_file = "/nowhere/key.toml"', {}, None, id="key file that isn't read"),
    ],
)
async def test_check_says_whether_the_settings_are_right(
    stack: Stack, text: str, settings: dict[str, str], complaint: str | None
) -> None:
    (stack.root / "agent.toml").write_text(text)

    done = run_agent(stack, "--check", **settings)

    assert done.stdout == ""
    if complaint is None:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == os.EX_CONFIG
        assert done.stderr.startswith("fargate-agent: ")
        assert done.stderr.endswith(f"{complaint}\n")
        assert done.stderr.count("\n") == 1


async def test_agent_that_has_its_key_from_elsewhere_needs_no_key_file(stack: Stack) -> None:
    (stack.root / "agent.toml").write_text('key_file = "/nowhere/key.toml"\n')

    stack.agent.end()
    stack.agent.start()

    wait_for(lambda: stack.agent.wrote("connected to"), "the agent", DEADLINE_S)


async def test_group_may_use_the_local_socket(stack: Stack) -> None:
    group = os.getgrouplist("daemon", 1)[0]
    (stack.root / "agent.toml").write_text('socket_group = "daemon"\n')

    stack.agent.end()
    assert not stack.socket.exists()
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("connected to"), "the agent", DEADLINE_S)

    found = stack.socket.stat()
    assert (found.st_gid, found.st_mode & 0o777) == (group, 0o660)
