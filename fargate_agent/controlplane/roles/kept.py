"""The credentials of every task's roles, as long as the task lives; in memory only."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from fargate_agent.aws.errors import RoleError
from fargate_agent.backoff import Backoff
from fargate_agent.controlplane.roles.minting import Minted
from fargate_agent.role_keys import RoleKeys

log = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""How many calls of STS are under way at the same time for roles of tasks that are to start, and as
many for those of tasks that have started. Of these a control plane that starts anew has thousands,
and nobody waits for them."""
TRIES: Final = Backoff(first_s=0.5, longest_s=60)
"""After a failure; until the next try it stands for those who ask."""


def _now() -> datetime:
    return datetime.now(UTC)


class Mints(Protocol):
    """What makes credentials; see `minting.Mint`."""

    async def mint(self, role_arn: str, task_id: str) -> Minted:
        """Return new credentials, or raise `RoleError`."""


@dataclass(slots=True)
class KeptRole:
    """What is known of one role of one task."""

    task_id: str
    role_arn: str
    minted: Minted | None = None
    taken: RoleKeys | None = field(default=None, repr=False)
    """What the agent has acknowledged last."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who holds it asks; the others wait for what comes."""
    failure: RoleError | None = None
    again_at: datetime = datetime.min.replace(tzinfo=UTC)
    pauses_s: Iterator[float] = field(default_factory=TRIES.pauses_s, repr=False)

    @property
    def has_taken(self) -> bool:
        """Whether the agent has the newest credentials."""
        return self.minted is not None and self.taken is self.minted.keys

    @property
    def next_at(self) -> datetime:
        """When there may be new ones."""
        if self.failure is not None or self.minted is None:
            return self.again_at
        return self.minted.refresh_at


class TaskRoles:
    """Has the credentials of the roles of tasks, each minted once until new ones are due."""

    def __init__(self, mint: Mints, now: Callable[[], datetime] = _now) -> None:
        self._mint = mint
        self._now = now
        self._kept: dict[str, KeptRole] = {}
        self._first_calls = asyncio.Semaphore(AT_ONCE)
        self._other_calls = asyncio.Semaphore(AT_ONCE)

    def find(self, credentials_id: str, task_id: str, role_arn: str) -> KeptRole:
        """Return what is known of a role of a task from now on, be it nothing yet."""
        return self._kept.setdefault(credentials_id, KeptRole(task_id, role_arn))

    def has(self, credentials_id: str) -> bool:
        """Whether the task of the role still lives, as far as is known."""
        return credentials_id in self._kept

    async def refresh(self, role: KeptRole, *, is_first: bool = False) -> Minted:
        """Return credentials of a role; new ones if they are due, else those there are.

        `is_first`: the task is to start, and waits for them.

        Raises:
            RoleError: there are none that last. Another try makes sense at `role.again_at`.
        """
        async with role.turn:
            now = self._now()
            if role.minted is not None and now < role.minted.refresh_at:
                return role.minted
            if role.failure is None or now >= role.again_at:
                await self._renew(role, self._first_calls if is_first else self._other_calls)
            if role.minted is not None and role.minted.keys.expires_at > self._now():
                return role.minted
            failure = role.failure or RoleError("the credentials have expired", may_pass=True)
        raise RoleError(str(failure), may_pass=failure.may_pass)

    async def _renew(self, role: KeptRole, calls: asyncio.Semaphore) -> None:
        try:
            async with calls:
                role.minted = await self._mint.mint(role.role_arn, role.task_id)
        except RoleError as error:
            # A new one: the frames of this one hold keys.
            role.failure = RoleError(str(error), may_pass=error.may_pass)
            pause_s = next(role.pauses_s)
            role.again_at = self._now() + timedelta(seconds=pause_s)
            log.error("task %s: no credentials of role %s: %s", role.task_id, role.role_arn, error)
        else:
            role.failure, role.pauses_s = None, TRIES.pauses_s()

    @property
    def task_ids(self) -> set[str]:
        """The tasks of which something is known."""
        return {role.task_id for role in self._kept.values()}

    def forget(self, task_ids: Collection[str]) -> None:
        """Keep nothing of these tasks."""
        for credentials_id, role in list(self._kept.items()):
            if role.task_id in task_ids:
                del self._kept[credentials_id]
