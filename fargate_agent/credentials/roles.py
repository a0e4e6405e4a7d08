"""The credentials of tasks' roles: got when they're asked for, kept until shortly before the end.

Nothing of them is ever written down. An agent that starts anew assumes the roles anew.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp

from fargate_agent.aws.calls import AwsError, AwsSite
from fargate_agent.aws.errors import RoleError
from fargate_agent.aws.machine_keys import read_machine_keys
from fargate_agent.aws.sts import assume_role
from fargate_agent.egress.transport import TransferError
from fargate_agent.plan import RolePlan, TaskPlan
from fargate_agent.role_keys import RoleKeys

log = logging.getLogger(__name__)

NOT_ASSUMABLE: Final = (
    "ECS was unable to assume the role '{arn}' that was provided for this task. Please verify that "
    "the role being passed has the proper trust relationship and permissions and that your IAM "
    "user has permissions to pass this role."
)
"""Source: ECS developer guide, stopped task error messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSettings:
    """What an operator may decide about roles, and what tests make short."""

    credentials_file: Path | None = None
    assume: bool = True
    """Else tasks get the machine's own keys, for local stacks without STS."""
    duration_s: int = 3600
    """The longest that every role allows, and a role that was itself assumed."""
    refresh_before_s: float = 1200
    """SDKs want new ones 15 minutes before the end. Source: botocore, credentials.py,
    `_advisory_refresh_timeout`."""
    retry_after_s: float = 5
    """Until then a failure stands for those who ask."""
    timeout_s: float = 4.0
    """For STS. Whoever waits for an answer of the metadata endpoint gets it within 5 s."""


@dataclass(slots=True)
class _Known:
    """What is known of one role of one task."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who holds it asks; the others wait for what comes."""
    keys: RoleKeys | None = None
    failure: RoleError | None = None
    failed_at: datetime = datetime.min.replace(tzinfo=UTC)


class Roles:
    """Has the credentials of every task's roles."""

    def __init__(self, http: aiohttp.ClientSession, site: AwsSite, settings: RoleSettings) -> None:
        """`http` speaks through the network of the machine, not through a task's."""
        self._http = http
        self._site = site
        self._settings = settings
        self._known: dict[str, _Known] = {}

    async def keys(self, task: TaskPlan, role: RolePlan) -> RoleKeys:
        """Return credentials of a role of a task that last for a while.

        Raises:
            RoleError: there are none to be had now. The first to hear so finds it in the log.
        """
        if role.given is not None and self._lasts(role.given, self._settings.refresh_before_s):
            return role.given
        known = self._known.setdefault(role.credentials_id, _Known())
        async with known.turn:
            if known.keys is not None and self._lasts(
                known.keys, min(self._settings.refresh_before_s, self._settings.duration_s / 3)
            ):
                return known.keys
            await self._refresh(known, task, role)
            for keys in (known.keys, role.given):
                if keys is not None and self._lasts(keys, 0):
                    return keys
            failure = known.failure or RoleError("the credentials have expired", may_pass=True)
        raise RoleError(str(failure), may_pass=failure.may_pass)

    def forget(self, task: TaskPlan) -> None:
        """Keep nothing of a task."""
        for role in task.roles:
            self._known.pop(role.credentials_id, None)

    async def _refresh(self, known: _Known, task: TaskPlan, role: RolePlan) -> None:
        """Get new credentials; if there are none, note why, and leave those there are."""
        now = datetime.now(UTC)
        if known.failure and now < known.failed_at + timedelta(
            seconds=self._settings.retry_after_s
        ):
            return
        try:
            known.keys = await self._get(task, role)
        except RoleError as error:
            # A new one: the frames of this one hold keys.
            known.failure = RoleError(str(error), may_pass=error.may_pass)
            known.failed_at = datetime.now(UTC)
            log.error("no credentials of role %s: %s", role.arn, error, extra={"task": task.id})
        else:
            known.failure = None

    async def _get(self, task: TaskPlan, role: RolePlan) -> RoleKeys:
        expires_at = datetime.now(UTC) + timedelta(seconds=self._settings.duration_s)
        own = await asyncio.to_thread(
            read_machine_keys, self._settings.credentials_file, expires_at.replace(microsecond=0)
        )
        if not self._settings.assume:
            return own
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                keys = await assume_role(
                    self._http,
                    self._site,
                    own,
                    role_arn=role.arn,
                    session_name=task.id,
                    duration_s=self._settings.duration_s,
                )
        except TimeoutError:
            text = f"STS has not answered within {self._settings.timeout_s:g} s"
            raise RoleError(text, may_pass=True) from None
        except TransferError as error:
            raise RoleError(f"STS can't be asked: {error}", may_pass=True) from error
        except AwsError as error:
            text = f"{NOT_ASSUMABLE.format(arn=role.arn)} {error}"
            raise RoleError(text, may_pass=error.may_pass) from error
        log.info("role %s is assumed until %s", role.arn, keys.expires_at, extra={"task": task.id})
        return keys

    def _lasts(self, keys: RoleKeys, for_s: float) -> bool:
        return keys.expires_at > datetime.now(UTC) + timedelta(seconds=for_s)
