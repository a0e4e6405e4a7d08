"""What the owner of a task reads of an error of containerd."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.errors import CannotCreateContainerError, CannotStartContainerError, TaskError
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.runtime.ending import parse_signal
from fargate_agent.runtime.reasons import explain, explain_create, explain_loss, render_duration
from tests.messages import site, task_message

RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: "


@pytest.fixture
def task(tmp_path: Path) -> TaskPlan:
    return plan_task(task_message(), site(tmp_path))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param(
            RUNC + 'unable to start container process: exec: "x": executable file not found in '
            "$PATH: unknown",
            CannotStartContainerError,
            id="no such program",
        ),
        pytest.param(
            "failed to create shim task: OCI runtime create failed: executable file `x` not found "
            "in $PATH: No such file or directory: unknown",
            CannotStartContainerError,
            id="no such program, crun",
        ),
        pytest.param(
            RUNC + "unable to start container process: error during container init: error mounting "
            '"proc" to rootfs at "/proc": permission denied: unknown',
            CannotCreateContainerError,
            id="no mount",
        ),
    ],
)
def test_a_refusal_is_named_after_what_was_refused(
    task: TaskPlan, text: str, kind: type[TaskError]
) -> None:
    error = explain_create(
        ContainerdError(f"create process of web: {text}"), task, task.containers[0]
    )

    assert type(error) is kind
    assert error.detail == text
    assert error.container == "web"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "mount /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/9/fs: bad",
            "mount …: bad",
            id="snapshot",
        ),
        pytest.param(
            "fork/exec /opt/loggers/json-file: no such file or directory: unknown",
            "start the container's logger: no such file or directory: unknown",
            id="logger",
        ),
        pytest.param(
            "open /run/containerd/runc/fargate/x/state.json: gone", "open …: gone", id="state"
        ),
    ],
)
def test_paths_of_the_host_are_left_out(task: TaskPlan, text: str, expected: str) -> None:
    error = explain_create(
        ContainerdError(f"create process of web: {text}"), task, task.containers[0]
    )

    assert error.detail == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            RUNC + "unable to start container process: error during container init: "
            "write /proc/sys/net/core/somaxconn: invalid argument: unknown",
            id="runC",
        ),
        pytest.param(
            "failed to create shim task: OCI runtime create failed: write to "
            "`/proc/sys/net/core/somaxconn`: Invalid argument: unknown",
            id="crun",
        ),
    ],
)
def test_a_kernel_parameter_is_named_as_in_the_definition(task: TaskPlan, text: str) -> None:
    container = replace(task.containers[0], sysctls={"net.core/somaxconn": "many"})

    error = explain_create(ContainerdError(f"create process of web: {text}"), task, container)

    assert error.detail == "unable to set the kernel parameter net.core/somaxconn: invalid argument"


def test_paths_of_the_task_are_left_out(task: TaskPlan) -> None:
    text = f"lstat {task.netns}: no; mount {task.directory}/etc/hosts: no"

    error = explain_create(ContainerdError(f"create: {text}"), task, task.containers[0])

    assert error.detail == (
        "lstat the task's network namespace: no; mount the task's directory/etc/hosts: no"
    )


def test_an_error_of_the_kernel_is_told_without_its_path() -> None:
    assert explain(FileNotFoundError(2, "No such file or directory", "/our/path")) == (
        "No such file or directory"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(240, "4m0s"), (60, "1m0s"), (59, "59s"), (1.5, "1.5s"), (3600, "1h0m0s"), (3661, "1h1m1s")],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert render_duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGQUIT", signal.SIGQUIT),
        ("quit", signal.SIGQUIT),
        ("3", 3),
        ("SIGRTMIN+3", 37),
        ("RTMIN", 34),
        ("SIGNOSUCH", signal.SIGTERM),
        ("0", signal.SIGTERM),
        ("99", signal.SIGTERM),
        ("", signal.SIGTERM),
    ],
)
def test_stop_signals_are_understood_by_name_and_number(name: str, number: int) -> None:
    assert parse_signal(name) == number


def test_shim_that_was_killed_is_named(task: TaskPlan) -> None:
    error = explain_loss(ContainerdError("wait for x: ttrpc: closed: unknown"), task.containers[0])
    other = explain_loss(ContainerdError("wait for x: no such process"), task.containers[0])

    assert error.detail == "nobody knows how the container ended: its shim was killed"
    assert other.detail == "nobody knows how the container ended: no such process"
