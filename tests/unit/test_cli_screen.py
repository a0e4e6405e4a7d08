"""What `fargate run --follow` says at the end: each thing once, in the order of what happened."""

import pytest

from fargate_agent.cli.clients.shapes import Task
from fargate_agent.cli.logs.printer import LogPrinter
from fargate_agent.cli.tasks.screen import TextScreen

ARN = f"arn:aws:ecs:us-east-1:000000000000:task/default/{'a' * 32}"
OOM = "OutOfMemoryError: container killed due to memory usage"


def say(capsys: pytest.CaptureFixture[str], task: Task, ended: list[str]) -> list[str]:
    screen = TextScreen(LogPrinter())
    screen.status({**task, "lastStatus": "STOPPED"})
    screen.end(task, 1, ended)
    return capsys.readouterr().err.splitlines()


def test_containers_are_named_in_the_order_in_which_they_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    task: Task = {
        "taskArn": ARN,
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "containers": [
            {"name": "side", "exitCode": 143},
            {"name": "late"},
            {"name": "app", "exitCode": 137, "reason": OOM},
        ],
    }

    assert say(capsys, task, ["app", "side"]) == [
        f"app: exit code 137, {OOM}",
        "side: exit code 143",
        "late: not run",
        "task aaaaaaaaaaaa stopped: Essential container in task exited (EssentialContainerExited)",
    ]


def test_reason_of_a_container_is_not_said_again_for_the_task(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = "CannotPullContainerError: not found"
    task: Task = {
        "taskArn": ARN,
        "stopCode": "TaskFailedToStart",
        "stoppedReason": reason,
        "containers": [{"name": "app", "reason": reason}, {"name": "side", "reason": reason}],
    }

    assert say(capsys, task, []) == [
        f"app: not run, {reason}",
        "side: not run",
        "task aaaaaaaaaaaa stopped: TaskFailedToStart",
    ]
