"""The credentials of a task's roles, and what only loggers ask for: the secret of an option.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/v1 and v2, the credentials handlers.
"""

import hmac
import json
from datetime import UTC
from typing import Final, Protocol

from aiohttp import web

from fargate_agent.aws.errors import RoleError
from fargate_agent.plan import RolePlan, TaskPlan
from fargate_agent.role_keys import RoleKeys

CREDENTIALS: Final = "/v2/credentials/"
SPLUNK_TOKEN: Final = "/v2/splunk-token/"  # noqa: S105 - a path


class Credentials(Protocol):
    """Has the credentials of tasks' roles."""

    async def keys(self, task: TaskPlan, role: RolePlan) -> RoleKeys:
        """Return credentials of a role of a task that last for a while.

        Raises:
            RoleError: there are none to be had now.
        """
        ...


class LogSecrets(Protocol):
    """Has the secrets of log options."""

    def take(self, task: TaskPlan, secrets_id: str, option: str) -> str | None:
        """Return a value, and forget it; None if that id isn't the task's, or has none."""
        ...


class Confidential:
    """Answers containers and loggers: what is behind an id is for who knows it."""

    def __init__(self, credentials: Credentials, log_secrets: LogSecrets) -> None:
        self._credentials = credentials
        self._log_secrets = log_secrets

    async def answer(self, task: TaskPlan | None, path: str) -> web.Response | None:
        """Answer a request of a task; None if the path is none of these."""
        if path.startswith(CREDENTIALS):
            return await self._answer_credentials(task, path.removeprefix(CREDENTIALS))
        if path.startswith(SPLUNK_TOKEN):
            return self._answer_token(task, path.removeprefix(SPLUNK_TOKEN))
        return None

    async def _answer_credentials(self, task: TaskPlan | None, wanted: str) -> web.Response:
        if not wanted:
            return _refuse(400, "NoIdInRequest", "No Credential ID in the request")
        roles = () if task is None else task.roles
        role = next((role for role in roles if _same(role.credentials_id, wanted)), None)
        if task is None or role is None:
            return _refuse(400, "InvalidIdInRequest", "Credentials not found")
        try:
            keys = await self._credentials.keys(task, role)
        except RoleError as error:
            return _refuse(500, "InternalServerError", str(error))
        return _json(
            200,
            {
                "RoleArn": role.arn,
                "AccessKeyId": keys.access_key,
                "SecretAccessKey": keys.secret_key,
                "Token": keys.token or "",
                "Expiration": keys.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        )

    def _answer_token(self, task: TaskPlan | None, wanted: str) -> web.Response:
        token = None if task is None else self._log_secrets.take(task, wanted, "splunk-token")
        if token is None:
            return _json(404, {"code": "InvalidIdInRequest", "message": "no splunk token here"})
        return _json(200, {"token": token})


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _refuse(status: int, code: str, text: str) -> web.Response:
    message = f"CredentialsV2Request: {text}"
    return _json(status, {"code": code, "message": message, "HTTPErrorCode": status})


def _json(status: int, body: dict[str, object]) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(body).encode(), content_type="application/json"
    )
