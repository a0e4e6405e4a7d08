"""Environment files, read from S3 with a task's execution role and through its own network."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

import aiohttp

from fargate_agent.aws.calls import AwsSite
from fargate_agent.credentials.roles import Roles
from fargate_agent.egress.session import Egress
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.parallel import together
from fargate_agent.plan import RolePlan, TaskPlan
from fargate_agent.secrets.env_files import MAX_FILE_BYTES, EnvFileError, parse_env_file
from fargate_agent.secrets.objects import get_object, parse_object
from fargate_agent.secrets.references import InvalidReferenceError
from fargate_agent.secrets.tries import FetchError, SecretSettings, repeat

FAILED: Final = "failed to download env files"
"""Source: ECS developer guide, stopped task error messages."""

Variables = Mapping[str, str]


class EnvFileReader:
    """Reads environment files."""

    def __init__(
        self, roles: Roles, site: AwsSite, egress: Egress, settings: SecretSettings
    ) -> None:
        self._roles = roles
        self._site = site
        self._egress = egress
        self._settings = settings

    async def fetch(self, task: TaskPlan, arns: Collection[str]) -> Mapping[str, Variables]:
        """Return the variables of each file by its ARN. The network of the task must be up.

        Raises:
            ResourceInitializationError: one could not be fetched, or has no variables to give.
        """
        if not arns:
            return {}
        role = task.execution_role
        if role is None:
            raise ResourceInitializationError(f"{FAILED}: the task has no execution role")
        files: dict[str, Variables] = {}
        try:
            async with (
                asyncio.timeout(self._settings.deadline_s),
                self._egress.session(task, self._settings.inactivity_s) as http,
            ):
                await together(self._fetch(http, task, role, arn, files) for arn in set(arns))
        except FetchError as error:
            raise ResourceInitializationError(str(error)) from error
        except TimeoutError as error:
            raise ResourceInitializationError(
                f"{FAILED}: not done within {self._settings.deadline_s:g} s: "
                "context deadline exceeded. Please check your task network configuration."
            ) from error
        return files

    async def _fetch(
        self,
        http: aiohttp.ClientSession,
        task: TaskPlan,
        role: RolePlan,
        arn: str,
        files: dict[str, Variables],
    ) -> None:
        """Put the variables of one file into `files`."""
        try:
            reference = parse_object(arn)
        except InvalidReferenceError as error:
            raise FetchError(f"{FAILED}: {error}") from error

        async def ask() -> bytes:
            keys = await self._roles.keys(task, role)
            return await get_object(http, self._site, keys, reference, MAX_FILE_BYTES)

        try:
            content = await repeat(ask, self._settings.retry, FAILED)
            files[arn] = parse_env_file(content)
        except (FetchError, EnvFileError) as error:
            text = str(error) if isinstance(error, FetchError) else f"{FAILED}: {error}"
            raise FetchError(f"{text} ({arn})") from error
