"""What a definition asks for around its program: an init, an open stdin, kernel parameters."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.containerd.types import Mount
from fargate_agent.errors import (
    CannotCreateContainerError,
    CannotStartContainerError,
    ResourceInitializationError,
)
from fargate_agent.plan import TaskPlan
from fargate_agent.runtime.program import check_program
from fargate_agent.runtime.stdin import NOEXEC
from fargate_agent.trees import remove_tree
from tests.fixtures.containerd import RUNC_ROOT
from tests.fixtures.machine import wait_for
from tests.fixtures.runtime import DEADLINE_S, Bench

pytestmark = pytest.mark.root


def find_children(pid: int) -> list[tuple[int, str]]:
    """Return the process ids and the states of a process's children. Source: proc(5), stat."""
    children = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid:
                children.append((int(file.parent.name), state))
    return children


def controls(**values: str) -> list[dict[str, str]]:
    """Kernel parameters, by name with `__` for dots."""
    return [
        {"namespace": name.replace("__", "."), "value": value} for name, value in values.items()
    ]


async def test_kernel_parameters_are_those_of_the_definition(bench: Bench) -> None:
    names = {
        "net__core__somaxconn": "1234",
        "net__ipv4__ip_unprivileged_port_start": "1024",
        "kernel__msgmax": "12345",
        "kernel__sem": "32000 1024000000 500 4000",
        "kernel__shm_rmid_forced": "1",
        "fs__mqueue__msg_max": "77",
    }
    paths = [f"/proc/sys/{name.replace('__', '/')}" for name in names]

    before = [Path(path).read_text() for path in paths]
    finished = await bench.run(f"cat {' '.join(paths)}", systemControls=controls(**names))

    lines = [" ".join(line.split()) for line in finished.output.splitlines()]
    assert lines == list(names.values())
    assert [Path(path).read_text() for path in paths] == before, "those of the host stay"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        pytest.param("net.ipv4.no_such", "1", "no such file or directory", id="unknown"),
        pytest.param("net.core.bpf_jit_enable", "0", "no such file or directory", id="the host's"),
        pytest.param("net.core.somaxconn", "many", "invalid argument", id="no number"),
        pytest.param("kernel.msgmni", "-1", "invalid argument", id="out of range"),
    ],
)
async def test_kernel_parameter_that_is_refused_is_named(
    bench: Bench, name: str, value: str, why: str
) -> None:
    control = {"namespace": name, "value": value}
    task = bench.plan({"command": ["true"], "systemControls": [control]})
    await bench.prepare(task)

    with pytest.raises(CannotCreateContainerError) as error:
        await bench.create(task)

    assert error.value.reason == (
        f"CannotCreateContainerError: unable to set the kernel parameter {name}: {why}"
    )


WITH_INIT: dict[str, Any] = {"linuxParameters": {"initProcessEnabled": True}}


async def test_an_init_is_the_first_process(bench: Bench) -> None:
    finished = await bench.run("busybox tr '\\0' ' ' </proc/1/cmdline; echo; exit 7", **WITH_INIT)

    assert finished.output.startswith("/dev/init -- sh -c ")
    assert finished.status.code == 7


async def find_member(bench: Bench, task: TaskPlan, arguments: bytes) -> int:
    """Return the process with these arguments, when it has begun."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for pid in await bench.containerd.processes.pids(task.containers[0].id):
                with suppress(OSError):
                    if arguments in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return pid
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("init", "left"),
    [
        pytest.param(WITH_INIT, [], id="init"),
        # It is the child of a program that never asked for it, and stays as a dead process.
        pytest.param({}, ["Z"], id="none"),
    ],
)
async def test_an_init_takes_leave_of_orphans(
    bench: Bench, init: dict[str, Any], left: list[str]
) -> None:
    task = await bench.begin("(busybox sleep 65 &); echo up; exec busybox sleep 66", **init)
    await bench.wait_for_output(task, "up")
    first = (await bench.containerd.processes.get(task.containers[0].id)).pid
    orphan = await find_member(bench, task, b"\x0065\0")

    os.kill(orphan, signal.SIGKILL)

    def children() -> list[str]:
        return [state for pid, state in find_children(first) if pid == orphan]

    wait_for(lambda: children() == left, f"the orphan to be {left}", DEADLINE_S)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="root"),
        pytest.param({"user": "1000"}, id="another user"),
        pytest.param({"readonlyRootFilesystem": True}, id="read-only root"),
        pytest.param({"pseudoTerminal": True}, id="terminal"),
    ],
)
async def test_an_init_passes_signals_on_and_the_exit_code_back(
    bench: Bench, changes: dict[str, Any]
) -> None:
    task = await bench.begin(
        "trap 'exit 9' TERM; echo ready; while :; do busybox usleep 10000; done",
        **WITH_INIT,
        **changes,
    )
    await bench.wait_for_output(task, "ready")

    status = await bench.runtime.stop(task.containers[0])

    assert status is not None
    assert status.code == 9


async def test_a_program_that_a_signal_ends_has_its_code_with_an_init_too(bench: Bench) -> None:
    finished = await bench.run("kill -KILL $$", **WITH_INIT)

    assert finished.status.code == 137


@pytest.mark.parametrize("init", [pytest.param(WITH_INIT, id="init"), pytest.param({}, id="none")])
@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["no-such"], 'exec: "no-such": executable file not found in $PATH'),
        (["/bin/no-such"], 'exec: "/bin/no-such": stat /bin/no-such: no such file or directory'),
        (["./no-such"], 'exec: "./no-such": stat ./no-such: no such file or directory'),
    ],
)
async def test_a_program_that_is_not_there_is_named(
    bench: Bench, argv: list[str], reason: str, init: dict[str, Any]
) -> None:
    task = bench.plan({"command": argv, **init})
    await bench.prepare(task)

    with pytest.raises(CannotStartContainerError) as error:
        await bench.create(task)

    assert reason in error.value.reason


@pytest.mark.parametrize(
    ("name", "mode", "fault"),
    [
        pytest.param("file", 0o644, "permission denied", id="not executable"),
        pytest.param("link", 0o755, None, id="link"),
        pytest.param("link", 0o644, "permission denied", id="link to what is not executable"),
        pytest.param("directory", 0o755, "is a directory", id="directory"),
        pytest.param("loop", 0o755, "too many levels of symbolic links", id="loop"),
    ],
)
async def test_what_is_no_program_is_told_apart(
    bench: Bench, tmp_path: Path, name: str, mode: int, fault: str | None
) -> None:
    root = tmp_path / "root"
    (root / "directory").mkdir(parents=True)
    (root / "file").touch(mode)
    (root / "link").symlink_to("/file")
    (root / "loop").symlink_to("/loop")
    task = bench.plan({"command": [f"/{name}"], **WITH_INIT})
    mounts = [Mount(type="bind", source=str(root), options=("rbind",))]

    with nullcontext() if fault is None else pytest.raises(CannotStartContainerError, match=fault):
        await check_program(task, task.containers[0], bench.config, mounts)


@pytest.mark.parametrize("argv", [["echo"], ["./echo"], ["bin/echo"], ["/data/run"], ["run"]])
async def test_a_program_is_found_where_the_container_has_it(bench: Bench, argv: list[str]) -> None:
    task = bench.plan(
        {
            "command": argv,
            "workingDirectory": "/bin" if argv[0].startswith("./") else "/",
            "environment": {"PATH": "/data:/bin"},
            "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}],
            **WITH_INIT,
        },
        volumes=[{"name": "data"}],
    )
    await bench.prepare(task)
    script = task.volumes[0].source / "run"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    await bench.runtime.start(task, await bench.create(task))

    assert (await bench.finish(task)).status.code == 0


@pytest.mark.parametrize(
    ("task", "container", "wish"),
    [
        pytest.param({}, WITH_INIT, "container 'web' asks for initProcessEnabled", id="init"),
        pytest.param({"pidMode": "task"}, {}, "the task asks for pidMode", id="pidMode"),
    ],
)
async def test_without_the_program_a_task_that_asks_for_an_init_is_refused(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    task: dict[str, Any],
    container: dict[str, Any],
    wish: str,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    plan = bench.plan({"command": ["true"], **container}, **task)

    with pytest.raises(ResourceInitializationError) as error:
        await bench.runtime.prepare(plan)

    assert error.value.detail == (
        f"{wish}, and this host has no program catatonit (Debian: the package catatonit)"
    )


def write_into(fifo: Path, text: str) -> None:
    """Write as somebody who comes and goes; it fails where nobody has stdin open."""
    descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    os.write(descriptor, text.encode())
    os.close(descriptor)


TERMINALS = [pytest.param(False, id="pipe"), pytest.param(True, id="terminal")]
ECHO = "while read line; do echo got $line; done; echo end"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="root"),
        pytest.param({"user": "1000"}, id="another user"),
        pytest.param(WITH_INIT, id="init"),
    ],
)
@pytest.mark.parametrize("terminal", TERMINALS)
async def test_stdin_of_an_interactive_container_stays_open_and_can_be_written(
    bench: Bench, terminal: bool, changes: dict[str, Any]
) -> None:
    task = await bench.begin(ECHO, interactive=True, pseudoTerminal=terminal, **changes)
    fifo = task.containers[0].stdin
    assert fifo is not None

    for text in ("one", "two"):
        write_into(fifo, f"{text}\n")
        await bench.wait_for_output(task, f"got {text}")

    status = await bench.runtime.stop(replace(task.containers[0], stop_timeout_s=0))
    assert status is not None
    assert status.code in {128 + signal.SIGTERM, 128 + signal.SIGKILL}
    assert "end" not in bench.output_file(task.containers[0]).read_text()


@pytest.mark.parametrize(("argv", "line"), [(["cat"], "hello"), (["sh"], "echo hello")])
async def test_program_that_reads_stdin_goes_on_if_the_container_is_interactive(
    bench: Bench, argv: list[str], line: str
) -> None:
    task = await bench.begin(command=argv, interactive=True)
    fifo = task.containers[0].stdin
    assert fifo is not None

    for count in (1, 2):
        write_into(fifo, f"{line} {count}\n")
        await bench.wait_for_output(task, f"hello {count}\n")


async def test_stdin_of_another_container_is_at_its_end(bench: Bench) -> None:
    assert (await bench.run(ECHO)).output == "end\n"


async def test_stdin_can_be_opened_by_name(bench: Bench) -> None:
    task = await bench.begin(
        "exec cat /dev/stdin", interactive=True, user="1000", readonlyRootFilesystem=True
    )
    fifo = task.containers[0].stdin
    assert fifo is not None

    write_into(fifo, "by name\n")

    await bench.wait_for_output(task, "by name")


@pytest.mark.parametrize("terminal", TERMINALS)
async def test_stdin_is_open_after_a_restart_in_place(bench: Bench, terminal: bool) -> None:
    task = await bench.begin(
        "read line; echo got $line; exit 3", interactive=True, pseudoTerminal=terminal
    )
    (container,) = task.containers
    assert container.stdin is not None

    for text in ("one", "two"):
        write_into(container.stdin, f"{text}\n")
        assert (await bench.runtime.wait(container)).code == 3
        await bench.wait_for_output(task, f"got {text}")
        await bench.runtime.restart(task, container, bench.log_uri(container))
        await bench.runtime.start(task, container)


async def test_interactive_container_is_swept_after_the_directory_of_its_task_has_gone(
    bench: Bench,
) -> None:
    task = await bench.begin("echo up; exec cat", interactive=True)
    await bench.wait_for_output(task, "up")
    states = RUNC_ROOT / bench.containerd.namespace
    assert [state.name for state in states.iterdir()] == [task.containers[0].id]
    await bench.storage.release(task)
    remove_tree(task.directory)

    await bench.runtime.sweep([])

    assert list(states.iterdir()) == []


@pytest.fixture
def noexec_tasks(bench: Bench) -> Iterator[None]:
    """The directories of tasks are where no program may be run from."""
    directory = bench.directory / "tasks"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "tasks", directory], check=True)
    yield
    subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.mark.usefixtures("noexec_tasks")
async def test_interactive_container_that_can_not_be_is_told_why(bench: Bench) -> None:
    task = bench.plan({"interactive": True})
    await bench.prepare(task)

    with pytest.raises(CannotCreateContainerError) as error:
        await bench.create(task)

    assert error.value.detail == NOEXEC
