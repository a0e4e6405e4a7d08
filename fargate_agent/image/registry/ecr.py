"""Amazon ECR: which hosts are its private registries, and the passwords that it gives to roles.

A password is asked for with the execution role of a task, through the network of that task, and
serves every task of the role until shortly before its end. Texts of failures are those of Fargate,
which counts tries: "has been retried 1 time(s)" is one.

Source: Amazon ECR user guide, "Private registry authentication"; ECR API, GetAuthorizationToken;
amazon-ecr-credential-helper, ecr-login/api/client.go, for the names of hosts; ECS developer guide,
stopped task error messages.
"""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import aiohttp

from fargate_agent.aws.calls import AwsCall, AwsSite, call_json
from fargate_agent.aws.errors import AwsError, RoleError
from fargate_agent.egress.retry import GaveUpError, Tries
from fargate_agent.egress.transport import RefusedError, TransferError
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.registry.auth import Credentials
from fargate_agent.plan import RolePlan, TaskPlan
from fargate_agent.role_keys import RoleKeys

FAILED: Final = (
    "unable to pull secrets or registry auth: execution resource retrieval failed: "
    "unable to retrieve ecr registry auth"
)
NO_ROLE: Final = (
    "Fargate requires task definition to have execution role ARN to support ECR images."
)
"""Source: ECS API, RegisterTaskDefinition, the text of that refusal."""

MAX_KEPT: Final = 100
"""Source: amazon-ecs-agent, agent/ecr/factory.go, the cache of tokens."""

RENEW_BEFORE: Final = timedelta(minutes=5)
"""A password has 12 hours, of which a pull may take some."""

TIMEOUT_S: Final = 15.0
"""For one answer of ECR."""

KEYS_WAIT_S: Final = 2.0
"""For keys of a role that have not come yet, where a copy or another registry will do."""


class GetKeys(Protocol):
    """Returns credentials of a role of a task, which may have to come first."""

    def __call__(
        self, task: TaskPlan, role: RolePlan, wait_s: float | None = None
    ) -> Awaitable[RoleKeys]:
        """Wait for `wait_s` at most; None: as long as a start may. Raises `RoleError`."""
        ...


_HOST: Final = re.compile(
    r"([0-9]{12})\.dkr[.-]ecr(?:-fips)?\.([a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2})"
    r"\.(?:amazonaws\.(?:com|com\.cn|eu)|on\.(?:aws|amazonwebservices\.com\.cn))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EcrHost:
    """A private registry of ECR."""

    account: str
    region: str


def parse_ecr_host(host: str) -> EcrHost | None:
    """Return which registry of ECR a host is; None if it is none, or the public one."""
    found = _HOST.fullmatch(host.lower())
    return EcrHost(account=found[1], region=found[2]) if found else None


@dataclass(frozen=True, slots=True)
class _Kept:
    credentials: Credentials = field(repr=False)
    expires_at: datetime


class EcrPasswords:
    """The passwords that ECR has given to execution roles; held in memory only."""

    def __init__(self, site: AwsSite, get_keys: GetKeys) -> None:
        self._site = site
        self._get_keys = get_keys
        self._kept: dict[tuple[str, str, str], _Kept] = {}
        """By account, region and ARN of the role."""
        self._turns = KeyedLocks()

    def url(self, host: EcrHost) -> str:
        """Return the URL of the service that gives the passwords of a registry."""
        return self._site.url("ecr", host.region)

    async def get(
        self,
        http: aiohttp.ClientSession,
        host: EcrHost,
        task: TaskPlan,
        tries: Tries,
        used: str | None,
    ) -> Credentials:
        """Return what the registry is shown; another than what it has refused, `used`.

        `http` speaks through the network of the task.

        Raises:
            ResourceInitializationError: ECR gives none.
        """
        role = task.execution_role
        if role is None:
            raise ResourceInitializationError(f"{FAILED}: {NO_ROLE}")
        key = (host.account, host.region, role.arn)
        async with AsyncExitStack() as turn:
            with suppress(TimeoutError):  # who is asking may have no way to ECR: it has its own
                async with asyncio.timeout(TIMEOUT_S):
                    await turn.enter_async_context(self._turns.lock("/".join(key)))
            kept = self._kept.get(key)
            if (
                kept is None
                or kept.credentials.header == used
                or kept.expires_at < datetime.now(UTC) + RENEW_BEFORE
            ):
                kept = await self._ask(http, host, task, role, tries)
                self._kept.pop(key, None)
                while len(self._kept) >= MAX_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = kept
            return kept.credentials

    async def _ask(
        self,
        http: aiohttp.ClientSession,
        host: EcrHost,
        task: TaskPlan,
        role: RolePlan,
        tries: Tries,
    ) -> _Kept:
        call = AwsCall(
            service="ecr",
            region=host.region,
            content_type="application/x-amz-json-1.1",
            target="AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            body=json.dumps({"registryIds": [host.account]}).encode(),
        )

        wait_s = KEYS_WAIT_S if tries.retry.waits_shortly else None

        async def ask() -> _Kept:
            try:
                keys = await self._get_keys(task, role, wait_s)
                async with asyncio.timeout(TIMEOUT_S):
                    return _parse(await call_json(http, self._site, keys, call))
            except AwsError as error:
                kind = TransferError if error.may_pass else RefusedError
                raise kind(str(error)) from error
            except RoleError as error:  # they were waited for
                raise RefusedError(str(error)) from error
            except TransferError as error:
                raise _advise(error) from error
            except TimeoutError as error:
                raise _advise(TransferError(f"no answer within {TIMEOUT_S:g} s")) from error

        try:
            return await tries.repeat(ask)
        except GaveUpError as error:
            raise ResourceInitializationError(
                f"{FAILED}: service call has been retried {error.tries} time(s): {error}"
            ) from error


def _advise(error: TransferError) -> TransferError:
    """Say it as Fargate does where the network is at fault; an answer that is none stays."""
    if isinstance(error, RefusedError):
        return error
    text = f"{error}. Please check your task network configuration."
    return type(error)(text).within("RequestError: send request failed caused by")


def _parse(answer: dict[str, Any]) -> _Kept:
    try:
        (given, *_) = answer["authorizationData"]
        pair = base64.b64decode(given["authorizationToken"], validate=True).decode()
        expires_at = datetime.fromtimestamp(given["expiresAt"], UTC)
    except (KeyError, TypeError, ValueError, binascii.Error, OverflowError, OSError):
        # Without the cause: it may show a part of the password.
        raise RefusedError("ecr answered with what is no authorization token") from None
    username, _, password = pair.partition(":")
    return _Kept(Credentials(username=username, password=password), expires_at)
