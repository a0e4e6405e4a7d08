"""The credentials of a task's roles, and what only loggers ask for: the secret of an option.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/v1 and v2, the credentials handlers.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC
from typing import Final

import aiohttp
from aiohttp import web

from fargate_agent.drivers import SecretStore
from fargate_agent.egress.session import Egress
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.roles.aws import AwsSite
from fargate_agent.roles.credentials import Roles, RoleSettings
from fargate_agent.roles.errors import RoleError
from fargate_agent.roles.secrets import Secrets, SecretSettings
from fargate_agent.settings import AgentSettings
from fargate_agent.tmds.log_secrets import LogSecrets

CREDENTIALS: Final = "/v2/credentials/"
SPLUNK_TOKEN: Final = "/v2/splunk-token/"  # noqa: S105 - a path


class Confidential(SecretStore):
    """Answers loggers. What they ask for stands behind ids that a container can't know."""

    def __init__(self, roles: Roles, log_secrets: LogSecrets) -> None:
        self._roles = roles
        self._log_secrets = log_secrets

    async def ensure(self, task: TaskPlan) -> None:
        """Return when what the loggers of a task ask for when they start is here.

        Raises:
            ResourceInitializationError: it is not to be had.
        """
        await self._log_secrets.ensure(task)

    async def fetch(self, task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        return await self._log_secrets.fetch(task, references)

    def forget(self, task: TaskPlan) -> None:
        """Keep nothing of a task."""
        self._log_secrets.forget(task)
        self._roles.forget(task)

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
            keys = await self._roles.keys(task, role)
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


def make_confidential(
    settings: AgentSettings,
    http: aiohttp.ClientSession,
    egress: Egress,
    exists: Callable[[ContainerPlan], Awaitable[bool]],
) -> Confidential:
    """Answer loggers as the settings of an agent want it; `http` is for the agent's own calls."""
    site = AwsSite(region=settings.region, endpoint_url=settings.aws_endpoint_url)
    role_settings = RoleSettings(
        credentials_file=settings.aws_credentials_file, assume=settings.assume_roles
    )
    roles = Roles(http, site, role_settings)
    secrets = Secrets(roles, site, egress, SecretSettings())
    return Confidential(roles, LogSecrets(secrets.fetch, exists))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _refuse(status: int, code: str, text: str) -> web.Response:
    message = f"CredentialsV2Request: {text}"
    return _json(status, {"code": code, "message": message, "HTTPErrorCode": status})


def _json(status: int, body: dict[str, object]) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(body).encode(), content_type="application/json"
    )
