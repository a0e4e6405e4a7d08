"""How a task moves on by what agents report."""

import itertools
import json
from typing import Any

import pytest

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.state.model import STATUSES, Eni, Task
from fargate_agent.controlplane.tasks.lifecycle import (
    apply_change,
    note_sent,
    note_stop_acked,
    request_stop,
)
from fargate_agent.controlplane.tasks.replacements import MAX_CHARS, MAX_REPLACEMENTS
from fargate_agent.controlplane.validate import parse_request

NOW = 1000.0
ATTACHED = [{"attachmentArn": "arn:aws:ecs:us-east-1:0:attachment/att-1", "status": "ATTACHED"}]


@pytest.fixture
def task() -> Task:
    """A task of two containers, `app` being essential, that an agent has been sent."""
    task = Task(
        id="0" * 32,
        delivery="WAITING",
        desired_status="RUNNING",
        last_status="PROVISIONING",
        version=1,
        containers=[
            {"name": "app", "lastStatus": "PENDING"},
            {"name": "helper", "lastStatus": "PENDING"},
        ],
        essential=["app"],
        eni=Eni(attachment_id="att-1", status="PRECREATED", in_use=True),
    )
    note_sent(task)
    return task


def exited(name: str, code: int) -> dict[str, Any]:
    return {"containerName": name, "status": "STOPPED", "exitCode": code}


def test_status_never_moves_to_the_left(task: Task) -> None:
    for before, status in itertools.product(STATUSES, ("PENDING", "RUNNING", "STOPPED")):
        task.last_status = before

        apply_change(task, {"status": status}, NOW)

        assert STATUSES.index(task.last_status) >= STATUSES.index(before)


def test_repeated_report_changes_nothing(task: Task) -> None:
    report = {
        "status": "RUNNING",
        "attachments": ATTACHED,
        "pullStartedAt": 1.0,
        "containers": [{"containerName": "app", "status": "RUNNING", "runtimeId": "r"}],
    }
    assert apply_change(task, report, NOW)
    version = task.version

    assert not apply_change(task, report, NOW + 1)

    assert task.version == version
    assert task.started_at == NOW


def test_report_after_the_end_changes_nothing(task: Task) -> None:
    apply_change(task, {"status": "STOPPED", "reason": "CannotPullContainerError: x"}, NOW)

    assert not apply_change(task, {"status": "RUNNING", "containers": [exited("app", 1)]}, NOW)
    assert "exitCode" not in task.containers[0]


def checked(status: str, since: float | None, restarts: int = 0) -> dict[str, Any]:
    """What is reported of `app` when its health check has said something."""
    container: dict[str, Any] = {"containerName": "app", "status": "RUNNING"}
    container |= {"healthStatus": status}
    container |= {} if since is None else {"healthStatusSince": since}
    container |= {"restartCount": restarts} if restarts else {}
    return {"status": "RUNNING", "containers": [container]}


@pytest.mark.parametrize(
    ("reports", "container", "whole"),
    [
        pytest.param([], "UNKNOWN", "STARTING", id="nothing yet"),
        pytest.param([("HEALTHY", 5.0)], "HEALTHY", "HEALTHY", id="passed"),
        pytest.param(
            [("HEALTHY", 5.0), ("UNHEALTHY", 6.0)], "UNHEALTHY", "UNHEALTHY", id="failed later"
        ),
        pytest.param([("HEALTHY", 6.0), ("UNHEALTHY", 5.0)], "HEALTHY", "HEALTHY", id="comes late"),
        pytest.param(
            [("HEALTHY", 5.0), ("UNKNOWN", None, 1)], "UNKNOWN", "STARTING", id="restarted"
        ),
        pytest.param(
            [("UNKNOWN", None, 1), ("HEALTHY", 5.0)], "HEALTHY", "HEALTHY", id="passed again"
        ),
        pytest.param(
            [("HEALTHY", 7.0, 2), ("UNHEALTHY", 9.0, 1)],
            "HEALTHY",
            "HEALTHY",
            id="comes after a restart",
        ),
        pytest.param(
            [("HEALTHY", NOW + 60), ("UNHEALTHY", 5.0)],
            "UNHEALTHY",
            "UNHEALTHY",
            id="the agent's clock was put back",
        ),
    ],
)
def test_health_is_that_of_the_latest_moment(
    task: Task, reports: list[tuple[Any, ...]], container: str, whole: str
) -> None:
    task.containers = [{**task.containers[0], "healthStatus": "UNKNOWN"}, task.containers[1]]
    apply_change(task, {"status": "RUNNING"}, NOW)

    for report in reports:
        apply_change(task, checked(*report), NOW)

    assert (task.containers[0]["healthStatus"], task.health_status) == (container, whole)


def test_health_of_a_task_is_that_of_its_essential_containers(task: Task) -> None:
    report = checked("UNHEALTHY", 5.0)
    report["containers"][0]["containerName"] = "helper"

    apply_change(task, report, NOW)

    assert (task.containers[1]["healthStatus"], task.health_status) == ("UNHEALTHY", "UNKNOWN")


def test_change_of_health_is_news_and_the_same_again_is_not(task: Task) -> None:
    apply_change(task, checked("UNKNOWN", None), NOW)
    version = task.version

    news = [apply_change(task, checked(status, 5.0), NOW) for status in ("HEALTHY", "HEALTHY")]

    assert (news, task.version) == ([True, False], version + 1)


def test_newest_report_of_a_container_holds_and_a_late_one_changes_nothing(task: Task) -> None:
    def report(status: str, **facts: Any) -> dict[str, Any]:
        return {"containers": [{"containerName": "app", "status": status, **facts}]}

    apply_change(task, report("RUNNING", reason="the output is lost", exitCode=9), NOW)
    assert "exitCode" not in task.containers[0]

    apply_change(task, report("STOPPED", reason="OutOfMemoryError", exitCode=137), NOW)
    apply_change(task, report("RUNNING", reason="the output is lost", imageDigest="late"), NOW)

    assert task.containers[0] == {
        "name": "app",
        "lastStatus": "STOPPED",
        "reason": "OutOfMemoryError",
        "exitCode": 137,
    }


@pytest.mark.parametrize(
    ("reports", "code", "reason"),
    [
        pytest.param(
            [{"status": "STOPPED", "reason": "CannotPullContainerError: not found"}],
            "TaskFailedToStart",
            "CannotPullContainerError: not found",
            id="never started",
        ),
        pytest.param(
            [{"status": "RUNNING"}, {"status": "STOPPED", "containers": [exited("app", 3)]}],
            "EssentialContainerExited",
            "Essential container in task exited",
            id="ran",
        ),
        pytest.param(
            [{"status": "STOPPED", "containers": [exited("app", 3)]}],
            "EssentialContainerExited",
            "Essential container in task exited",
            id="exited before all had started",
        ),
        pytest.param(
            [
                {
                    "status": "STOPPED",
                    "reason": "CannotStartContainerError: no such file",
                    "containers": [exited("app", 143)],
                }
            ],
            "TaskFailedToStart",
            "CannotStartContainerError: no such file",
            id="ended because another could not start",
        ),
        pytest.param(
            [{"status": "STOPPED", "containers": [exited("helper", 1)]}],
            "TaskFailedToStart",
            "Task failed to start",
            id="only a container that isn't essential exited",
        ),
    ],
)
def test_stop_code_and_reason_follow_from_what_happened(
    task: Task, reports: list[dict[str, Any]], code: str, reason: str
) -> None:
    for report in reports:
        apply_change(task, report, NOW)

    assert (task.stop_code, task.stopped_reason) == (code, reason)


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        pytest.param(
            [{"stopCode": "TaskFailedToStart", "reason": "no such file"}],
            "TaskFailedToStart",
            id="an error ended it, whatever it is called",
        ),
        pytest.param(
            [{"stopCode": "EssentialContainerExited", "reason": "AnError: it says of itself"}],
            "EssentialContainerExited",
            id="a container exited, whatever it said",
        ),
        pytest.param(
            [{"stopCode": "UserInitiated", "reason": "the agent was told to drain"}],
            "EssentialContainerExited",
            id="the agent was asked to end it",
        ),
        pytest.param(
            [{"status": "RUNNING"}, {"stopCode": "TaskFailedToStart"}],
            "EssentialContainerExited",
            id="an error ended it when it ran",
        ),
    ],
)
def test_code_of_the_agent_says_whether_an_error_ended_the_task(
    task: Task, reports: list[dict[str, Any]], code: str
) -> None:
    for report in reports:
        apply_change(task, {"status": "STOPPED", "containers": [exited("app", 143)], **report}, NOW)

    assert task.stop_code == code


def test_report_may_have_a_code_that_ecs_knows() -> None:
    report = {"task": "t", "status": "STOPPED", "stopCode": "TaskFailedToStart"}

    assert parse_request("SubmitTaskStateChange", json.dumps(report).encode()) == report
    with pytest.raises(ApiError, match="stopCode must be one of: TaskFailedToStart"):
        parse_request("SubmitTaskStateChange", b'{"stopCode": "Bored"}')


def test_what_was_wrong_with_a_run_is_not_said_of_the_next_one(task: Task) -> None:
    report = checked("UNKNOWN", None, 1)
    report["containers"][0]["reason"] = "the output is lost"
    apply_change(task, report, NOW)
    apply_change(task, checked("UNKNOWN", None, 1), NOW)
    assert task.containers[0]["reason"] == "the output is lost"

    apply_change(task, checked("UNKNOWN", None, 2), NOW)

    assert "reason" not in task.containers[0]


def test_report_may_have_health_and_restarts_that_ecs_hears_elsewhere() -> None:
    report = checked("HEALTHY", 5.0, 1)

    assert parse_request("SubmitTaskStateChange", json.dumps(report).encode()) == report
    report["containers"][0]["healthStatus"] = "ILL"
    with pytest.raises(ApiError, match="healthStatus must be one of: HEALTHY"):
        parse_request("SubmitTaskStateChange", json.dumps(report).encode())


def test_stop_by_the_user_keeps_its_reason_when_containers_exit(task: Task) -> None:
    apply_change(task, {"status": "RUNNING"}, NOW)
    request_stop(task, "enough", NOW)

    apply_change(
        task, {"status": "STOPPED", "reason": "x", "containers": [exited("app", 143)]}, NOW
    )

    assert (task.stop_code, task.stopped_reason) == ("UserInitiated", "enough")


def test_second_stop_is_ignored(task: Task) -> None:
    request_stop(task, None, NOW)
    version = task.version

    request_stop(task, "again", NOW)

    assert (task.version, task.stopped_reason) == (version, "Task stopped by user")


def test_task_that_an_agent_may_have_ends_only_when_the_agent_says_so(task: Task) -> None:
    request_stop(task, None, NOW)
    note_stop_acked(task, NOW)

    assert (task.last_status, task.eni.in_use) == ("STOPPING", True)

    apply_change(task, {"status": "STOPPED"}, NOW)

    assert (task.last_status, task.eni.in_use, task.eni.status) == ("STOPPED", False, "DELETED")


def test_report_of_running_does_not_take_a_stop_back(task: Task) -> None:
    request_stop(task, None, NOW)
    note_stop_acked(task, NOW)

    apply_change(task, {"status": "RUNNING"}, NOW)

    assert task.last_status == "STOPPING"


def test_attachment_alone_connects_the_task(task: Task) -> None:
    apply_change(task, {"attachments": ATTACHED}, NOW)

    assert (task.eni.status, task.connectivity_at) == ("ATTACHED", NOW)


def test_container_that_never_started_has_no_exit_code(task: Task) -> None:
    apply_change(task, {"status": "STOPPED", "containers": [exited("helper", 1)]}, NOW)

    assert "exitCode" not in task.containers[0]
    assert {container["lastStatus"] for container in task.containers} == {"STOPPED"}


def test_unknown_container_is_passed_over(task: Task) -> None:
    assert not apply_change(task, {"containers": [exited("ghost", 1)]}, NOW)


def replaced(what: str, by: str = "x", kind: str = "secret") -> dict[str, str]:
    return {"kind": kind, "what": what, "by": by}


def test_what_is_replaced_is_taken_once_and_the_first_word_holds(task: Task) -> None:
    before = task.version
    first = {"status": "PENDING", "replacements": [replaced("a")]}

    assert apply_change(task, first, NOW)
    assert not apply_change(task, first, NOW)
    assert not apply_change(task, {"replacements": [replaced("a", "y")]}, NOW)
    assert apply_change(task, {"replacements": [replaced("a"), replaced("b")]}, NOW)
    assert apply_change(task, {"replacements": [replaced("a", kind="role")]}, NOW)

    assert task.document["replacements"] == [
        replaced("a"),
        replaced("b"),
        replaced("a", kind="role"),
    ]
    assert task.version == before + 3


def test_what_is_replaced_is_bounded(task: Task) -> None:
    apply_change(task, {"replacements": [replaced(f"{n}{'x' * 5000}") for n in range(900)]}, NOW)

    kept = task.document["replacements"]
    assert len(kept) == MAX_REPLACEMENTS
    assert {len(one["what"]) for one in kept} == {MAX_CHARS["what"]}


@pytest.mark.parametrize(
    "replacements",
    [
        pytest.param({}, id="no list"),
        pytest.param(["secret"], id="no object"),
        pytest.param([{"kind": "secret", "what": "a"}], id="by is missing"),
        pytest.param([replaced("a") | {"value": "s"}], id="another member"),
        pytest.param([replaced("a") | {"by": 1}], id="no text"),
    ],
)
def test_replacements_of_another_shape_are_refused(replacements: object) -> None:
    with pytest.raises(ApiError):
        parse_request("SubmitTaskStateChange", json.dumps({"replacements": replacements}).encode())
