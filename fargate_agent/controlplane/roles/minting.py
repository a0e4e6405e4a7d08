"""Makes credentials of a role: asked of STS, or those that stand for the role on this machine.

Nothing of them is ever written down.
"""

import asyncio
import logging
import os
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import aiohttp

from fargate_agent.aws.calls import AwsSite
from fargate_agent.aws.errors import AwsError, RoleError
from fargate_agent.aws.machine_keys import (
    SETTING,
    find_shared_file,
    read_environment_keys,
    read_machine_keys,
)
from fargate_agent.aws.sts import assume_role
from fargate_agent.controlplane.role_settings import LocalRoleSettings, find_local_role
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.egress.transport import TransferError
from fargate_agent.role_keys import RoleKeys

log = logging.getLogger(__name__)

NOT_ASSUMABLE: Final = (
    "ECS was unable to assume the role '{arn}' that was provided for this task. Please verify that "
    "the role being passed has the proper trust relationship and permissions and that your IAM "
    "user has permissions to pass this role."
)
"""Source: ECS developer guide, stopped task error messages."""

MADE_UP: Final = "keys made up on this machine, which AWS doesn't know"
MACHINES_OWN: Final = "the machine's own keys"

_KEY_ALPHABET: Final = string.ascii_uppercase + "234567"
_KEY_CHARS: Final = 16
"""After `ASIA`. Source: IAM user guide, "Unique identifiers"."""
_SECRET_BYTES: Final = 30
"""Gives 40 characters, the length of AWS's secrets."""
_TOKEN_BYTES: Final = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class MintTimes:
    """How long credentials last and are waited for."""

    duration_s: int = 3600
    """The longest that every role allows, and a role that was itself assumed."""
    refresh_before_s: float = 1200
    """SDKs want new ones 15 minutes before the end. Source: botocore, credentials.py,
    `_advisory_refresh_timeout`. Of short ones: a third of their time."""
    timeout_s: float = 4.0
    """For STS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """Credentials of one role of one task."""

    keys: RoleKeys
    refresh_at: datetime
    """When new ones are due."""
    made_from: str | None = None
    """What the role was replaced by, in words; None: it was assumed."""


class Mint:
    """Makes credentials, one call for each."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        settings: ControlPlaneSettings,
        times: MintTimes | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`http` speaks through the network of the machine."""
        self._http = http
        self._settings = settings
        self._times = times or MintTimes()
        self._environ = environ
        self._site = AwsSite(region=settings.region, endpoint_url=settings.aws_endpoint_url)

    async def mint(self, role_arn: str, task_id: str) -> Minted:
        """Return new credentials of a role for a task.

        Raises:
            RoleError: there are none to be had. The text holds no secret; the ARN stands in it
                where another try won't help.
        """
        now = datetime.now(UTC)
        local = find_local_role(self._settings.local_roles, role_arn)
        try:
            keys, made_from = await self._get(local, role_arn, task_id, now)
        except RoleError as error:
            if error.may_pass:
                raise
            raise RoleError(f"{NOT_ASSUMABLE.format(arn=role_arn)} {error}") from None
        urls = {} if local is None else local.all_endpoint_urls
        return Minted(
            keys=keys,
            refresh_at=self._plan_refresh(keys, now),
            made_from=_tell(made_from, urls),
        )

    async def _get(
        self, local: LocalRoleSettings | None, role_arn: str, task_id: str, now: datetime
    ) -> tuple[RoleKeys, str | None]:
        expires_at = now.replace(microsecond=0) + timedelta(seconds=self._times.duration_s)
        if local is not None and local.profile is not None:
            keys = await asyncio.to_thread(self._read_profile, local.profile, expires_at)
            return keys, f"the keys of profile {local.profile}"
        if local is not None and (given := _read_given(local, expires_at)) is not None:
            return given, "the keys in local_roles"
        if self._settings.is_local:
            return make_up_keys(expires_at), MADE_UP
        own = await asyncio.to_thread(self._read_own, expires_at)
        if not self._settings.assume_roles:
            return own or make_up_keys(expires_at), MACHINES_OWN if own else MADE_UP
        if own is None and self._settings.aws_endpoint_url is None:
            read_machine_keys(None, expires_at)  # says what to do
        # what stands for AWS takes any key, or says that it doesn't
        return await self._assume(own or make_up_keys(expires_at), role_arn, task_id), None

    def _read_own(self, expires_at: datetime) -> RoleKeys | None:
        """Read the machine's own keys; None: it has none."""
        if self._settings.aws_credentials_file is not None:
            return read_machine_keys(self._settings.aws_credentials_file, expires_at)
        return read_environment_keys(self._environ, expires_at)

    def _read_profile(self, profile: str, expires_at: datetime) -> RoleKeys:
        own = self._settings.aws_credentials_file
        file = own or find_shared_file(self._environ)
        if file is None:
            raise RoleError(
                f"local_roles names profile {profile}, and there is no credentials file: set "
                "aws_credentials_file"
            )
        name = SETTING if own else "the shared credentials file"
        try:
            return read_machine_keys(file, expires_at, profile, name)
        except RoleError as error:
            raise RoleError(f"local_roles names profile {profile}, and {error}") from None

    async def _assume(self, own: RoleKeys, role_arn: str, task_id: str) -> RoleKeys:
        try:
            async with asyncio.timeout(self._times.timeout_s):
                keys = await assume_role(
                    self._http,
                    self._site,
                    own,
                    role_arn=role_arn,
                    session_name=task_id,
                    duration_s=self._times.duration_s,
                )
        except TimeoutError:
            text = f"STS has not answered within {self._times.timeout_s:g} s"
            raise RoleError(text, may_pass=True) from None
        except TransferError as error:
            raise RoleError(f"STS can't be asked: {error}", may_pass=True) from None
        except AwsError as error:
            raise RoleError(str(error), may_pass=error.may_pass) from None
        if keys.expires_at <= datetime.now(UTC):
            raise RoleError(
                f"STS gave credentials that ended at {keys.expires_at}: is the clock here right?",
                may_pass=True,
            )
        log.info("task %s: role %s is assumed until %s", task_id, role_arn, keys.expires_at)
        return keys

    def _plan_refresh(self, keys: RoleKeys, now: datetime) -> datetime:
        lifetime = keys.expires_at - now
        return keys.expires_at - min(timedelta(seconds=self._times.refresh_before_s), lifetime / 3)


def make_up_keys(expires_at: datetime) -> RoleKeys:
    """Make credentials that look like those of a role, and are worth nothing."""
    tail = "".join(secrets.choice(_KEY_ALPHABET) for _ in range(_KEY_CHARS))
    return RoleKeys(
        access_key=f"ASIA{tail}",
        secret_key=secrets.token_urlsafe(_SECRET_BYTES),
        token=secrets.token_urlsafe(_TOKEN_BYTES),
        expires_at=expires_at,
    )


def _read_given(local: LocalRoleSettings, expires_at: datetime) -> RoleKeys | None:
    if local.access_key_id is None or local.secret_access_key is None:
        return None
    token = local.session_token
    return RoleKeys(
        access_key=local.access_key_id,
        secret_key=local.secret_access_key.get_secret_value(),
        token=None if token is None else token.get_secret_value(),
        expires_at=expires_at,
    )


def _tell(made_from: str | None, urls: Mapping[str, str]) -> str | None:
    if not urls:
        return made_from
    where = ", ".join(sorted(set(urls.values())))
    return f"{made_from or 'the role itself'}, for {where}"
