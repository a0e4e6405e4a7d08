"""Health and restarts of containers as the command line shows them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from fargate_agent.cli.clients.agent import ContainerLife
from fargate_agent.cli.clients.shapes import Container, Health, Run, Task
from fargate_agent.cli.output import NO_LIMIT
from fargate_agent.cli.tasks.describe import render_task
from fargate_agent.cli.tasks.life import merge_life
from fargate_agent.cli.tasks.ps import render_tasks
from fargate_agent.cli.why.explain import explain
from fargate_agent.cli.why.show import render_why

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TASK_ID = "0123456789abcdef0123456789abcdef"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def make_task(*containers: dict[str, Any], **changes: Any) -> Task:
    task = {
        "taskArn": f"arn:aws:ecs:us-east-1:000000000000:task/default/{TASK_ID}",
        "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/web:3",
        "lastStatus": "RUNNING",
        "desiredStatus": "RUNNING",
        "createdAt": ago(130),
        "startedAt": ago(120),
        "containers": list(containers) or [{"name": "app", "lastStatus": "RUNNING"}],
    }
    return cast(Task, {**task, **changes})


def app(**more: Any) -> dict[str, Any]:
    return {"name": "app", "lastStatus": "RUNNING", **more}


def health(status: str, **more: Any) -> Health:
    found = {"status": status, "since": None, "failingStreak": 0, "exitCode": None, "output": ""}
    return cast(Health, {**found, **more})


def run(began_s: float, lasted_s: float | None = None, exit_code: int | None = None) -> Run:
    ended = None if lasted_s is None else ago(began_s - lasted_s)
    began = ago(began_s)
    return {"createdAt": began, "startedAt": began, "finishedAt": ended, "exitCode": exit_code}


SICK = health("UNHEALTHY", since=ago(70), failingStreak=3, exitCode=7, output="no\n\x1b[1mway\n")


def uncoloured(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def pairs(lines: list[str], label: str) -> list[str]:
    return [line.split(None, label.count(" ") + 1)[-1] for line in lines if line.startswith(label)]


def test_health_is_a_column_where_that_of_a_task_is_known() -> None:
    unknown = make_task(healthStatus="UNKNOWN")

    without = uncoloured(render_tasks([unknown], 200, NOW))
    header, first, second = uncoloured(
        render_tasks([unknown, make_task(healthStatus="UNHEALTHY")], 200, NOW)
    )

    assert "HEALTH" not in without[0]
    assert header.split()[2:4] == ["STATUS", "HEALTH"]
    assert [first.split()[3], second.split()[3]] == ["UNKNOWN", "UNHEALTHY"]


def test_task_is_described_with_its_ebs_volume() -> None:
    details = {
        "roleArn": "arn:aws:iam::000000000000:role/r",
        "deleteOnTermination": "false",
        "volumeName": "data",
        "volumeId": "vol-0123456789abcdef0",
    }
    attachment = {
        "type": "AmazonElasticBlockStorage",
        "status": "ATTACHED",
        "details": [{"name": name, "value": value} for name, value in details.items()],
    }
    lines = uncoloured(render_task(make_task(attachments=[attachment]), NO_LIMIT, NOW))
    (line,) = [one for one in lines if "vol-" in one]
    assert line.split(maxsplit=1) == ["volume", "data, vol-0123456789abcdef0, kept, attached"]


def test_task_is_described_with_its_health_and_its_restarts() -> None:
    runs = [run(100, 30, 2), run(70, 20.5, 137), run(49.5)]
    container = app(healthStatus="UNHEALTHY", restartCount=2, health=SICK, runs=runs)

    lines = uncoloured(render_task(make_task(container, healthStatus="UNHEALTHY"), NO_LIMIT, NOW))

    assert pairs(lines, "health") == [
        "UNHEALTHY",
        "UNHEALTHY since 1m, 3 checks in a row failed with exit code 7",
    ]
    assert pairs(lines, "last check") == ["no [1mway"]
    assert pairs(lines, "restarts") == ["2"]
    assert [text.partition(", ")[2] for text in pairs(lines, "run ")] == [
        "30 s, exit code 2",
        "20.5 s, exit code 137",
        "",
    ]


def test_runs_that_the_agent_has_forgotten_are_counted() -> None:
    container = app(restartCount=9, runs=[run(900, 60, 1), run(70, 60, 1), run(9)])

    lines = uncoloured(render_task(make_task(container), NO_LIMIT, NOW))

    told = [line.removeprefix("run").strip() for line in lines if line.startswith("run ")]
    assert [text.partition(", ")[2] for text in told] == [
        "60 s, exit code 1",
        "",
        "60 s, exit code 1",
        "",
    ]
    assert told[1] == "… 7 more"


def test_container_without_check_and_restarts_has_no_lines_about_them() -> None:
    container = app(healthStatus="UNKNOWN", restartCount=0, runs=[run(100)])

    lines = uncoloured(render_task(make_task(container, healthStatus="UNKNOWN"), NO_LIMIT, NOW))

    assert not [line for line in lines if line.startswith(("health", "last", "restarts", "run"))]


@pytest.mark.parametrize("width", [60, 40])
def test_health_fits_a_narrow_terminal(width: int) -> None:
    long = health("UNHEALTHY", since=ago(70), failingStreak=3, output="word " * 200)
    container = app(healthStatus="UNHEALTHY", restartCount=1, health=long, runs=[run(100, 30, 2)])
    task = make_task(container, healthStatus="UNHEALTHY")
    task["taskArn"] = "arn:task/x"

    told = [
        *render_tasks([task], width, NOW),
        *render_task(task, width, NOW),
        *render_why(task, explain(task), width, NOW),
    ]

    assert max(map(len, uncoloured(told))) <= width


@pytest.mark.parametrize(
    ("container", "said"),
    [
        pytest.param(
            app(healthStatus="UNHEALTHY", health=SICK),
            "The health check of container app fails: 3 checks in a row failed with exit code 7.",
            id="unhealthy",
        ),
        pytest.param(
            app(healthStatus="UNHEALTHY"),
            "The health check of container app fails.",
            id="unhealthy, and another machine has it",
        ),
        pytest.param(
            app(restartCount=1, runs=[run(100, 30, 137), run(69)]),
            "Container app was restarted once. Before that, container app was killed",
            id="restarted",
        ),
        pytest.param(
            app(restartCount=3),
            "Container app was restarted 3 times.",
            id="restarted, and another machine has it",
        ),
        pytest.param(
            app(healthStatus="UNKNOWN", health=health("UNKNOWN", exitCode=1), runs=[run(9)]),
            "The health check of container app has not passed yet: the last check failed with exit",
            id="fails in its start period",
        ),
        pytest.param(
            app(healthStatus="UNKNOWN", health=health("UNKNOWN"), runs=[run(9)]),
            "The health check of container app has not passed yet.",
            id="not checked yet",
        ),
        pytest.param(
            app(healthStatus="HEALTHY", health=health("HEALTHY")), "It runs.", id="healthy"
        ),
    ],
)
def test_why_says_what_is_wrong_with_a_task_that_runs(container: dict[str, Any], said: str) -> None:
    assert explain(make_task(container)).what.startswith(said)


def test_health_check_of_a_container_that_is_not_started_explains_nothing() -> None:
    waiting = app(lastStatus="PENDING", health=health("UNKNOWN"), runs=[])
    failing = {**waiting, "name": "other", "reason": "try 2 of 5: no such host"}
    task = make_task(waiting, failing, lastStatus="PENDING", pullStartedAt=ago(60))

    assert explain(task).what == "An image couldn't be pulled yet; that is tried again."


def test_why_says_what_waits_for_a_container_that_is_unhealthy() -> None:
    containers = [app(healthStatus="UNHEALTHY"), {"name": "other", "lastStatus": "PENDING"}]

    pending = explain(make_task(*containers, lastStatus="PENDING"))
    running = explain(make_task(*containers))

    assert pending.advice.startswith("What waits for HEALTHY waits until it passes. See")
    assert running.advice.startswith("A service replaces such a task;")


def test_why_says_that_a_container_that_is_not_essential_is_sick_alone() -> None:
    side = {**app(healthStatus="UNHEALTHY", essential=False), "name": "side"}
    both = make_task(side, app(healthStatus="UNHEALTHY", essential=True))

    assert explain(make_task(side)).advice.startswith("It isn't essential: the task goes on")
    assert explain(both).what.startswith("The health check of container app fails")


def test_why_shows_what_the_last_check_wrote() -> None:
    task = make_task(app(healthStatus="UNHEALTHY", health=SICK))

    lines = uncoloured(render_why(task, explain(task), NO_LIMIT, NOW))

    assert pairs(lines, "last check") == ["no [1mway"]


def test_why_names_the_container_for_which_a_task_was_replaced() -> None:
    task = make_task(
        app(healthStatus="UNHEALTHY"),
        lastStatus="STOPPED",
        stopCode="ServiceSchedulerInitiated",
        stoppedReason="Task failed container health checks",
    )

    assert "container app's health check failed" in explain(task).what


def test_what_the_agent_knows_is_added_to_the_containers_by_name() -> None:
    other: Container = {"name": "other"}
    task = make_task(app(), cast(dict[str, Any], other))
    life = ContainerLife(name="app", restart_count=2, runs=[run(5)], health=SICK)

    merge_life(task, [life])

    assert task["containers"] == [
        app(restartCount=2, runs=[run(5)], health=SICK),
        {"name": "other"},
    ]


def test_task_that_was_killed_for_the_disk_is_not_blamed_for_its_exit_code() -> None:
    task = make_task(
        {"name": "app", "lastStatus": "STOPPED", "exitCode": 137, "essential": True},
        lastStatus="STOPPED",
        stopCode="EssentialContainerExited",
        stoppedReason="OutOfDiskError: the disk of /state is almost full (9 MiB of 2950 MiB free)",
    )

    assert "The task had filled it most, and was killed." in explain(task).what
