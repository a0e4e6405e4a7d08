"""The runtime with crun, which containers can't tell from runC.

crun refuses a host where cgroup v1 and v2 are both mounted. There it is shown a host with v1 alone:
containerd has mounts of its own, without the tree of v2.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.errors import (
    CannotCreateContainerError,
    CannotExecError,
    CannotStartContainerError,
)
from fargate_agent.runtime.cgroup import parse_unified_mount
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.execs import DEADLINE_S, IDLE, Output, run_inside
from tests.fixtures.programs import require_program
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root


@pytest.fixture
def oci_runtime() -> str:
    require_program("crun")
    return shutil.which("crun") or ""


@pytest.fixture
def containerd_socket(
    netns: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """It sees later mounts of the test alone, so the network namespace has to be there."""
    mountinfo = Path("/proc/self/mountinfo").read_text()
    unified = parse_unified_mount(mountinfo)
    is_hybrid = unified is not None and " - cgroup " in mountinfo
    own_mounts = ("unshare", "--mount", "--propagation", "slave")
    hide = (*own_mounts, "sh", "-c", f'umount {unified}; exec "$@"', "sh")
    subprocess.run(["mount", "--rbind", tmp_path, tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    daemon = PrivateContainerd(tmp_path_factory.mktemp("crun"), hide if is_hybrid else ())
    try:
        daemon.start()
        yield daemon.socket
    finally:
        daemon.remove()
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


async def test_a_container_is_as_with_runc(bench: Bench) -> None:
    finished = await bench.run(
        "id; busybox hostname; busybox pwd; busybox grep -E 'Seccomp:|CapEff' /proc/self/status;"
        "ulimit -n; cat /proc/sys/net/core/somaxconn; busybox grep /cache /proc/self/mountinfo;"
        "echo $COLOUR; exit 7",
        user="web",
        environment={"COLOUR": "blue"},
        workingDirectory="/var/run",
        memory=64,
        ulimits=[{"name": "nofile", "softLimit": 100, "hardLimit": 100}],
        systemControls=[{"namespace": "net.core.somaxconn", "value": "77"}],
        linuxParameters={
            "tmpfs": [{"containerPath": "/cache", "size": 8}],
            "initProcessEnabled": True,
        },
    )

    lines = finished.output.splitlines()
    assert finished.status.code == 7
    assert lines[:3] == [
        "uid=1000(web) gid=1001(web) groups=1001(web),1002(logs)",
        "ip-10-213-0-5.ec2.internal",
        "/var/run",
    ]
    assert [line.split()[1] for line in lines[3:5]] == ["0" * 16, "2"]
    assert lines[5:7] == ["100", "77"]
    assert "size=8192k" in lines[7]
    assert lines[8] == "blue"


async def test_a_container_over_its_memory_limit_is_killed(bench: Bench) -> None:
    finished = await bench.run("exec dd if=/dev/zero of=/dev/null bs=64M count=1", memory=16)

    assert finished.status.oom_killed
    assert finished.status.code == 137


@pytest.mark.parametrize("terminal", [False, True])
async def test_stdin_stays_open_through_a_restart_in_place(bench: Bench, terminal: bool) -> None:
    task = await bench.begin(
        "read line; echo got $line; exit 3", interactive=True, pseudoTerminal=terminal
    )
    (container,) = task.containers
    assert container.stdin is not None

    for text in ("one", "two"):
        container.stdin.write_text(f"{text}\n")
        assert (await bench.runtime.wait(container)).code == 3
        await bench.wait_for_output(task, f"got {text}")
        await bench.runtime.restart(task, container, bench.log_uri(container))
        await bench.runtime.start(task, container)


async def test_a_program_is_run_inside(bench: Bench) -> None:
    task = await bench.begin(IDLE, interactive=True)

    code, output = await run_inside(bench, task, "echo one; echo two >&2; cat; exit 7")

    assert (code, output.stdout, output.stderr) == (7, b"one\n", b"two\n")
    with pytest.raises(CannotExecError, match="no-such"):
        await bench.runtime.exec(task.containers[0], "x", ("no-such",), Output().io(), DEADLINE_S)


async def test_containers_share_a_pid_namespace(bench: Bench) -> None:
    finished = await bench.run("cat /proc/1/cmdline; exit 7", task={"pidMode": "task"})

    assert finished.status.code == 7
    assert finished.output == "/dev/init\0-P\0"


async def test_container_is_stopped_by_its_signal(bench: Bench) -> None:
    task = await bench.begin("trap 'exit 9' TERM; echo up; while :; do busybox usleep 9999; done")
    await bench.wait_for_output(task, "up")

    status = await bench.runtime.stop(task.containers[0])

    assert status is not None
    assert status.code == 9


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        pytest.param(
            {"command": ["no-such"]}, CannotStartContainerError, "no-such", id="no such program"
        ),
        pytest.param(
            {"command": ["/bin/no-such"]}, CannotStartContainerError, "/bin/no-such", id="no file"
        ),
        pytest.param(
            {"command": ["sh"], "systemControls": [{"namespace": "net.no.such", "value": "1"}]},
            CannotCreateContainerError,
            "unable to set the kernel parameter net.no.such: no such file or directory",
            id="no such parameter",
        ),
        pytest.param(
            {"command": ["sh"], "linuxParameters": {"tmpfs": [{"containerPath": "/etc/passwd",
             "size": 1}]}}, CannotCreateContainerError, "etc/passwd", id="no directory",
        ),
    ],
)  # fmt: skip
async def test_refusal_is_named_after_what_was_refused(
    bench: Bench, changes: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    task = bench.plan(changes)
    await bench.prepare(task)

    with pytest.raises(kind, match=reason) as error:
        await bench.create(task)

    assert str(bench.directory) not in str(error.value)
