"""The values of secrets, read with a task's execution role and through the task's own network."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import aiohttp

from fargate_agent.aws.calls import AwsSite
from fargate_agent.credentials.roles import Roles
from fargate_agent.egress.retry import Retry
from fargate_agent.egress.session import Egress
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.parallel import together
from fargate_agent.plan import TaskPlan
from fargate_agent.role_keys import RoleKeys
from fargate_agent.secrets.pick import pick
from fargate_agent.secrets.references import (
    InvalidReferenceError,
    ParameterReference,
    SecretReference,
    parse_reference,
)
from fargate_agent.secrets.services import MAX_PARAMETERS, get_parameters, get_secret
from fargate_agent.secrets.tries import FetchError, SecretSettings, repeat

FAILED: Final = "unable to pull secrets or registry auth: execution resource retrieval failed"
FROM_ASM: Final = "unable to retrieve secret from asm"
FROM_SSM: Final = "unable to retrieve secrets from ssm"
ONE_TRY: Final = "service call has been retried 1 time(s)"


class SecretReader:
    """Reads what `valueFrom` of a task definition refers to."""

    def __init__(
        self,
        roles: Roles,
        site: AwsSite,
        egress: Egress,
        settings: SecretSettings,
    ) -> None:
        self._roles = roles
        self._site = site
        self._egress = egress
        self._settings = settings

    async def fetch(self, task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        """Return the values by what refers to them. The network of the task must be up.

        Raises:
            ResourceInitializationError: one could not be fetched.
        """
        if not references:
            return {}
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                return await self._fetch(task, references)
        except (FetchError, InvalidReferenceError) as error:
            raise ResourceInitializationError(f"{FAILED}: {error}") from error
        except TimeoutError as error:
            raise ResourceInitializationError(
                f"{FAILED}: not done within {self._settings.deadline_s:g} s: "
                "context deadline exceeded. Please check your task network configuration."
            ) from error

    async def _fetch(self, task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        if task.execution_role is None:
            raise FetchError("the task has no execution role")
        secrets: dict[SecretReference, dict[str, str]] = defaultdict(dict)
        parameters: dict[str, dict[str, str]] = defaultdict(dict)
        for reference in references:
            match parse_reference(reference, self._site.region):
                case SecretReference() as secret:
                    secrets[replace(secret, json_key="")][reference] = secret.json_key
                case ParameterReference(region=region, name=name):
                    parameters[region][reference] = name
        values: dict[str, str] = {}
        async with self._egress.session(task, self._settings.inactivity_s) as http:
            fetcher = _Fetcher(
                http=http,
                site=self._site,
                keys=partial(self._roles.keys, task, task.execution_role),
                retry=self._settings.retry,
                values=values,
            )
            await together(
                [
                    *(fetcher.fetch_secret(*item) for item in secrets.items()),
                    *(
                        fetcher.fetch_parameters(region, part)
                        for region, wanted in parameters.items()
                        for part in batches(wanted)
                    ),
                ]
            )
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetcher:
    """Asks for the secrets of one task, and puts them into `values`."""

    http: aiohttp.ClientSession
    site: AwsSite
    keys: Callable[[], Awaitable[RoleKeys]]
    retry: Retry
    values: dict[str, str] = field(repr=False)

    async def fetch_secret(self, secret: SecretReference, wanted: Mapping[str, str]) -> None:
        """`wanted` has keys of the secret's object by what refers to them; empty is all of it."""

        async def ask() -> str:
            return await get_secret(self.http, self.site, await self.keys(), secret)

        failed = f"failed to fetch secret {secret.arn} from secrets manager: "
        text = await repeat(ask, self.retry, FROM_ASM, failed)
        for reference, key in wanted.items():
            self.values[reference] = pick(text, key, f"{FROM_ASM}: {ONE_TRY}") if key else text

    async def fetch_parameters(self, region: str, wanted: Mapping[str, str]) -> None:
        """`wanted` has the names or ARNs of ten parameters at most, by what refers to them."""
        names = sorted(set(wanted.values()))

        async def ask() -> dict[str, str]:
            return await get_parameters(self.http, self.site, await self.keys(), region, names)

        found = await repeat(ask, self.retry, FROM_SSM)
        if missing := [name for name in names if name not in found]:
            text = f"{ONE_TRY}: invalid ssm parameters: {','.join(missing)}"
            raise FetchError(f"{FROM_SSM}: {text}")
        self.values.update({reference: found[name] for reference, name in wanted.items()})


def batches(wanted: Mapping[str, str]) -> list[dict[str, str]]:
    """Split what is wanted into what one call takes."""
    items = sorted(wanted.items())
    return [
        dict(items[start : start + MAX_PARAMETERS])
        for start in range(0, len(items), MAX_PARAMETERS)
    ]
