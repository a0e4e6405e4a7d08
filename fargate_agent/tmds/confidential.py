"""The credentials of a task's own role, for its containers. Nothing else that is secret is here.

What loggers and the agent act as never crosses the network of a task: a container that listens to
its loopback would read it.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/v1 and v2, the credentials handlers.
"""

import hmac
import json
from typing import Any, Final, Protocol

from aiohttp import web

from fargate_agent.credentials.answers import render_keys, render_refusal
from fargate_agent.credentials.audit import Asked, Audit
from fargate_agent.plan import RolePlan, TaskPlan
from fargate_agent.role_keys import RoleKeys

LEGACY: Final = "/v1/credentials"
"""The id is in the query: `?id=…`."""
CREDENTIALS: Final = "/v2/credentials"


class Credentials(Protocol):
    """Has the credentials of tasks' roles."""

    def find(self, task: TaskPlan, role: RolePlan) -> RoleKeys | None:
        """Return credentials of a role of a task; None if there are none that are good now."""
        ...


class Confidential:
    """Answers containers: what is behind an id is for the task that has it."""

    def __init__(self, credentials: Credentials, audit: Audit) -> None:
        self._credentials = credentials
        self._audit = audit

    async def answer(
        self, task: TaskPlan | None, path: str, request: web.BaseRequest
    ) -> web.Response | None:
        """Answer a request that came out of the namespace of a task; None if it is none of these.

        `path` is that of the request, cleaned; any method will do.
        """
        if path == LEGACY:
            version, wanted = 1, request.query.get("id", "")
        elif path.startswith(CREDENTIALS + "/"):
            version, wanted = 2, path.removeprefix(CREDENTIALS + "/")
        else:
            return None
        role = None if task is None else task.task_role
        if role is not None and not _same(role.credentials_id, wanted):
            role = None
        status, body = self._find(task, role, wanted, f"CredentialsV{version}Request: ")
        place = LEGACY if version == 1 else CREDENTIALS
        client = request.headers.get("User-Agent", "")
        self._audit.note(Asked.TASK_ROLE, status, place, client, task, role)
        return web.Response(
            status=status, body=json.dumps(body).encode(), content_type="application/json"
        )

    def _find(
        self, task: TaskPlan | None, role: RolePlan | None, wanted: str, prefix: str
    ) -> tuple[int, dict[str, Any]]:
        if not wanted:
            return _refuse(400, "NoIdInRequest", f"{prefix}No Credential ID in the request")
        if task is None or role is None:
            return _refuse(400, "InvalidIdInRequest", f"{prefix}Credentials not found")
        keys = self._credentials.find(task, role)
        if keys is None:
            text = f"{prefix}Credentials uninitialized for ID"
            return _refuse(503, "CredentialsUninitialized", text)
        return 200, render_keys(role, keys)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode(errors="replace"))


def _refuse(status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, render_refusal(status, code, message)
