"""`$ECS_AGENT_URI/task-protection/v1/state`: a task says that it must not be stopped now.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/taskprotection/v1; ECS developer guide, "Amazon
ECS task scale-in protection endpoint".
"""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, Final

from fargate_agent.plan import TaskPlan
from fargate_agent.tmds.answers import Answer, answer_json
from fargate_agent.tmds.control_plane import CALL_TIMEOUT_S, Calls, RefusedError, UnreachableError

_MEMBERS: Final = {name.lower(): name for name in ("protectionEnabled", "expiresInMinutes")}
"""Go takes names of members in any case. Source: Go, encoding/json, `Unmarshal`."""

_OPERATIONS: Final = {"GET": "GetTaskProtection", "PUT": "UpdateTaskProtection"}


class _BodyError(Exception):
    """A body is not what it should be."""


async def answer_protection(
    calls: Calls, task: TaskPlan | None, method: str, body: bytes
) -> Answer:
    """Answer GET and PUT; None is a task that isn't there."""
    try:
        wanted = _parse(body) if method == "PUT" else {}
    except _BodyError as error:
        return _refuse(400, None, "InvalidParameterException", str(error))
    if task is None:
        text = "Failed to find a task for the request"
        return _refuse(404, None, "ResourceNotFoundException", text)
    if task.task_role is None:
        text = "Invalid Request: no task IAM role credentials available for task"
        return _refuse(403, task, "AccessDeniedException", text)
    return await _ask(calls, task, _OPERATIONS[method], wanted)


async def _ask(calls: Calls, task: TaskPlan, operation: str, wanted: dict[str, Any]) -> Answer:
    request = {"cluster": task.cluster_arn, "tasks": [task.arn], **wanted}
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return _render(task, await calls.call(operation, request))
    except RefusedError as error:
        return _refuse(error.status, task, error.code, error.message, error.request_id)
    except TimeoutError:
        text = "Timed out calling ECS Task Protection API"
        return _refuse(504, task, "RequestCanceled", text)
    except UnreachableError as error:
        return _refuse(500, task, "ServerException", str(error))


def _parse(body: bytes) -> dict[str, Any]:
    """Read the first JSON value of a body, as Go's decoder does; return members of the API's.

    Raises:
        _BodyError: it isn't what is expected; the text is the agent's.
    """
    wrong = _BodyError("UpdateTaskProtection: failed to decode request")
    try:
        value, _ = json.JSONDecoder().raw_decode(body.decode().lstrip())
        members = {_MEMBERS[name.lower()]: member for name, member in value.items()}
    except (ValueError, RecursionError, AttributeError, KeyError) as error:
        raise wrong from error
    enabled, minutes = members.get("protectionEnabled"), members.get("expiresInMinutes")
    if not isinstance(enabled, bool | None) or type(minutes) not in {int, type(None)}:
        raise wrong
    if enabled is None:
        raise _BodyError("Invalid request: does not contain 'ProtectionEnabled' field")
    return {name: member for name, member in members.items() if member is not None}


def _render(task: TaskPlan, answer: dict[str, Any]) -> Answer:
    for failure in answer.get("failures", ()):
        named = {"Arn": "arn", "Detail": "detail", "Reason": "reason"}
        shown = {name: failure[member] for name, member in named.items() if member in failure}
        return answer_json(200, {"failure": shown})
    for found in answer.get("protectedTasks", ()):
        protection = {"ProtectionEnabled": found["protectionEnabled"]}
        if "expirationDate" in found:
            moment = datetime.fromtimestamp(found["expirationDate"], UTC)
            text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            protection["ExpirationDate"] = text
        return answer_json(200, {"protection": {**protection, "TaskArn": found["taskArn"]}})
    return _refuse(500, task, "ServerException", "Unexpected error occurred")


def _refuse(
    status: int, task: TaskPlan | None, code: str, text: str, request_id: str | None = None
) -> Answer:
    error = {"Code": code, "Message": text}
    shown: dict[str, Any] = {} if request_id is None else {"requestID": request_id}
    return answer_json(
        status, {**shown, "error": error if task is None else {"Arn": task.arn, **error}}
    )
