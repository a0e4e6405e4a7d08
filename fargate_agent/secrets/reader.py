"""The values of secrets, read with a task's execution role and through the task's own network.

Texts of failures are those of Fargate, which counts tries: "has been retried 1 time(s)" is one.
Source: ECS developer guide, stopped task error messages.
"""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import aiohttp

from fargate_agent.aws.calls import AwsError, AwsSite
from fargate_agent.aws.errors import RoleError
from fargate_agent.credentials.roles import Roles
from fargate_agent.egress.retry import Retry
from fargate_agent.egress.session import Egress
from fargate_agent.egress.transport import RefusedError, TransferError
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.parallel import together
from fargate_agent.plan import TaskPlan
from fargate_agent.role_keys import RoleKeys
from fargate_agent.secrets.references import (
    InvalidReferenceError,
    ParameterReference,
    SecretReference,
    parse_reference,
)
from fargate_agent.secrets.services import MAX_PARAMETERS, get_parameters, get_secret

log = logging.getLogger(__name__)

FAILED: Final = "unable to pull secrets or registry auth: execution resource retrieval failed"
FROM_ASM: Final = "unable to retrieve secret from asm"
FROM_SSM: Final = "unable to retrieve secrets from ssm"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSettings:
    """How long a task waits for its secrets."""

    retry: Retry = field(default_factory=Retry)
    inactivity_s: float = 15
    """How long a service may send nothing."""
    deadline_s: float = 120
    """For all secrets of a task."""


class _FetchError(Exception):
    """A value is not to be had. Never leaves this module."""


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
        except (_FetchError, InvalidReferenceError) as error:
            raise ResourceInitializationError(f"{FAILED}: {error}") from error
        except TimeoutError as error:
            raise ResourceInitializationError(
                f"{FAILED}: not done within {self._settings.deadline_s:g} s: "
                "context deadline exceeded. Please check your task network configuration."
            ) from error

    async def _fetch(self, task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        if task.execution_role is None:
            raise _FetchError("the task has no execution role")
        secrets: dict[str, SecretReference] = {}
        parameters: dict[str, dict[str, str]] = defaultdict(dict)
        for reference in references:
            match parse_reference(reference, self._site.region):
                case SecretReference() as secret:
                    secrets[reference] = secret
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
                    *(fetcher.fetch_parameters(*item) for item in parameters.items()),
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
    values: dict[str, str]

    async def fetch_secret(self, reference: str, secret: SecretReference) -> None:
        async def ask() -> str:
            return await get_secret(self.http, self.site, await self.keys(), secret)

        failed = f"failed to fetch secret {secret.arn} from secrets manager: "
        text = await self._try(ask, FROM_ASM, failed)
        self.values[reference] = _pick(text, secret.json_key) if secret.json_key else text

    async def fetch_parameters(self, region: str, wanted: Mapping[str, str]) -> None:
        """`wanted` has the names or ARNs of parameters, by what refers to them."""
        names = list(wanted.values())
        for start in range(0, len(names), MAX_PARAMETERS):
            part = names[start : start + MAX_PARAMETERS]

            async def ask(part: list[str] = part) -> dict[str, str]:
                return await get_parameters(self.http, self.site, await self.keys(), region, part)

            found = await self._try(ask, FROM_SSM)
            if missing := [name for name in part if name not in found]:
                text = "service call has been retried 1 time(s): invalid ssm parameters: "
                raise _FetchError(f"{FROM_SSM}: {text}{','.join(missing)}")
            self.values.update({one: found[name] for one, name in wanted.items() if name in found})

    async def _try(
        self, ask: Callable[[], Awaitable[Result]], what: str, failed: str = ""
    ) -> Result:
        """Return what the first try that succeeds returns.

        Raises:
            _FetchError: none did, or one was refused.
        """
        tries, pauses_s = 0, self.retry.backoff.pauses_s()
        while True:
            tries += 1
            try:
                return await ask()
            except (AwsError, RoleError, TransferError) as error:
                if not _may_pass(error) or tries >= self.retry.attempts:
                    counted = f"service call has been retried {tries} time(s)"
                    raise _FetchError(f"{what}: {counted}: {failed}{_explain(error)}") from error
                log.info("secrets: try %d of %d failed: %s", tries, self.retry.attempts, error)
            await asyncio.sleep(next(pauses_s))


def _may_pass(error: AwsError | RoleError | TransferError) -> bool:
    if isinstance(error, TransferError):
        return not isinstance(error, RefusedError)
    return error.may_pass


def _explain(error: AwsError | RoleError | TransferError) -> str:
    if isinstance(error, TransferError) and _may_pass(error):
        return (
            f"RequestError: send request failed caused by: {error}. "
            "Please check your task network configuration."
        )
    return str(error)


def _pick(text: str, key: str) -> str:
    """Return one member of a secret that is an object; the text of a failure shows none of it."""
    try:
        secret = json.loads(text)
    except ValueError:
        secret = None
    counted = f"{FROM_ASM}: service call has been retried 1 time(s)"
    if not isinstance(secret, dict):
        raise _FetchError(f"{counted}: the secret is not a JSON object, so it has no key {key}")
    if key not in secret:
        raise _FetchError(
            f"{counted}: retrieved secret from Secrets Manager did not contain json key {key}"
        )
    value = secret[key]
    return value if isinstance(value, str) else json.dumps(value)
