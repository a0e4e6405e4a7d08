"""Bodies and answers of task protection, with a control plane that says what it is told to."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.plan import RolePlan, TaskPlan, plan_task
from fargate_agent.tmds.control_plane import RefusedError, UnreachableError
from fargate_agent.tmds.protection import answer_protection
from tests.fixtures.tmds import Desk
from tests.messages import CLUSTER_ARN, TASK_ARN, container_json, site, task_message

PROTECTED = {
    "protectedTasks": [
        {"taskArn": TASK_ARN, "protectionEnabled": True, "expirationDate": 1767607200.5}
    ],
    "failures": [],
}


def plan() -> TaskPlan:
    task = plan_task(task_message(container_json("web")), site(Path("/nowhere")))
    return replace(task, task_role=RolePlan(arn="arn:aws:iam::1:role/r", credentials_id="c"))


async def ask(
    answer: dict[str, Any] | Exception = PROTECTED,
    body: bytes = b"",
    task: TaskPlan | None = None,
) -> tuple[int, Any, list[tuple[str, dict[str, Any]]]]:
    desk = Desk({"GetTaskProtection": answer, "UpdateTaskProtection": answer})
    found = await answer_protection(desk, task or plan(), "PUT" if body else "GET", body)
    return found.status, json.loads(found.body), desk.asked


async def test_state_is_asked_for_and_told() -> None:
    status, body, asked = await ask()

    assert asked == [("GetTaskProtection", {"cluster": CLUSTER_ARN, "tasks": [TASK_ARN]})]
    assert status == 200
    assert body == {
        "protection": {
            "ProtectionEnabled": True,
            "ExpirationDate": "2026-01-05T10:00:00.500Z",
            "TaskArn": TASK_ARN,
        }
    }


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"ProtectionEnabled":true}', {"protectionEnabled": True}),
        (
            b'{"ProtectionEnabled":true,"ExpiresInMinutes":60}',
            {"protectionEnabled": True, "expiresInMinutes": 60},
        ),
        (
            b' {"protectionEnabled": false, "ExpiresInMinutes": null} {',
            {"protectionEnabled": False},
        ),
    ],
)
async def test_put_changes_what_it_says(body: bytes, wanted: dict[str, Any]) -> None:
    status, _, asked = await ask(body=body)

    assert status == 200
    request = {"cluster": CLUSTER_ARN, "tasks": [TASK_ARN], **wanted}
    assert asked == [("UpdateTaskProtection", request)]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"nonsense", "UpdateTaskProtection: failed to decode request"),
        (b"[]", "UpdateTaskProtection: failed to decode request"),
        (b"\xff", "UpdateTaskProtection: failed to decode request"),
        (b"[" * 50_000, "UpdateTaskProtection: failed to decode request"),
        (b'{"ProtectionEnabled":1}', "UpdateTaskProtection: failed to decode request"),
        (
            b'{"ProtectionEnabled":true,"ExpiresInMinutes":"60"}',
            "UpdateTaskProtection: failed to decode request",
        ),
        (
            b'{"ProtectionEnabled":true,"ExpiresInMinutes":true}',
            "UpdateTaskProtection: failed to decode request",
        ),
        (
            b'{"ProtectionEnabled":true,"More":1}',
            "UpdateTaskProtection: failed to decode request",
        ),
        (b"{}", "Invalid request: does not contain 'ProtectionEnabled' field"),
        (
            b'{"ExpiresInMinutes":60}',
            "Invalid request: does not contain 'ProtectionEnabled' field",
        ),
    ],
)
async def test_body_that_makes_no_sense_is_refused(body: bytes, text: str) -> None:
    status, answer, asked = await ask(body=body)

    assert (status, asked) == (400, [])
    assert answer == {"error": {"Code": "InvalidParameterException", "Message": text}}


async def test_task_that_is_not_there_and_one_without_a_role_are_refused() -> None:
    nobody = await answer_protection(Desk(), None, "GET", b"")
    without = await ask(task=replace(plan(), task_role=None))

    assert nobody.status == 404
    assert json.loads(nobody.body)["error"] == {
        "Code": "ResourceNotFoundException",
        "Message": "Failed to find a task for the request",
    }
    assert without == (
        403,
        {
            "error": {
                "Arn": TASK_ARN,
                "Code": "AccessDeniedException",
                "Message": "Invalid Request: no task IAM role credentials available for task",
            }
        },
        [],
    )


async def test_failure_of_the_service_is_no_error_of_http() -> None:
    failures = [{"arn": TASK_ARN, "reason": "TASK_NOT_VALID"}]

    status, body, _ = await ask({"protectedTasks": [], "failures": failures})

    assert status == 200
    assert body == {"failure": {"Arn": TASK_ARN, "Reason": "TASK_NOT_VALID"}}


@pytest.mark.parametrize(
    ("error", "status", "code", "more"),
    [
        (
            RefusedError("ThrottlingException", "slow down", status=400, request_id="r-1"),
            400,
            "ThrottlingException",
            {"requestID": "r-1"},
        ),
        (UnreachableError("it is away"), 500, "ServerException", {}),
    ],
)
async def test_error_keeps_its_status_and_code(
    error: Exception, status: int, code: str, more: dict[str, str]
) -> None:
    found, body, _ = await ask(error)

    assert found == status
    message = getattr(error, "message", str(error))
    assert body == {**more, "error": {"Arn": TASK_ARN, "Code": code, "Message": message}}


async def test_control_plane_that_takes_too_long_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fargate_agent.tmds.protection.CALL_TIMEOUT_S", 0.01)
    answer = await answer_protection(Desk(delay_s=60), plan(), "GET", b"")

    assert answer.status == 504
    assert json.loads(answer.body)["error"] == {
        "Arn": TASK_ARN,
        "Code": "RequestCanceled",
        "Message": "Timed out calling ECS Task Protection API",
    }
