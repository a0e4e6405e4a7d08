"""The credentials of roles on their way to one agent: with its tasks, and pushed when they're new.

Each role of a live task has a job that ends with the task or the connection: it mints, waits until
the agent has the task, pushes what the agent hasn't got, and sleeps until new ones are due.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.aws.errors import RoleError
from fargate_agent.backoff import Backoff
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.role_settings import find_local_role
from fargate_agent.controlplane.roles.kept import KeptRole, TaskRoles
from fargate_agent.controlplane.roles.minting import Minted
from fargate_agent.controlplane.state.model import ContainerInstance, Task
from fargate_agent.controlplane.tasks import lifecycle
from fargate_agent.controlplane.tasks.changes import change_task
from fargate_agent.controlplane.validate import Json
from fargate_agent.role_keys import RoleKeys
from fargate_agent.wire.messages import (
    Frame,
    IAMRoleCredentialsAckRequest,
    IAMRoleCredentialsMessage,
    RoleCredentialsMessage,
    RoleType,
)

log = logging.getLogger(__name__)

WAIT_S: Final = 2.0
"""How long a task waits for its credentials before it goes out without. They follow."""
LONGEST_RESEND: Final = 6
"""A push that isn't acknowledged is sent again ever later, up to so many times `resend_s`."""
LONGEST_SLEEP_S: Final = 60.0
"""The clock of the machine may be set meanwhile."""

_MEMBERS: Final[dict[str, RoleType]] = {
    "executionRoleCredentials": "TaskExecution",
    "roleCredentials": "TaskApplication",
}
"""Of a `TaskMessage`."""


@dataclass(slots=True, kw_only=True)
class _Role:
    """One role of one task, on one connection."""

    task_arn: str
    cluster_arn: str
    member: str
    stated: RoleCredentialsMessage
    """As it is stored, without credentials, and with the endpoints that stand for it here."""
    kept: KeptRole
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """There are credentials, or there won't be any."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """The agent has the task."""
    refused: bool = False
    """The task is to end for it."""
    sent: RoleKeys | None = field(default=None, repr=False)
    """What goes to the agent, and isn't acknowledged yet."""
    message_id: str = ""
    """Of the push."""
    acked: asyncio.Event = field(default_factory=asyncio.Event)
    job: asyncio.Task[None] | None = None


class RoleDelivery:
    """Brings the credentials of an agent's tasks to it, as long as the connection lasts."""

    def __init__(
        self,
        plane: Plane,
        roles: TaskRoles,
        *,
        send: Callable[[Frame], Awaitable[None]],
        wake: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        """`wake` has it looked what is due for the agent; `give_up` ends the connection."""
        self._plane = plane
        self._kept = roles
        self._send = send
        self._wake = wake
        self._give_up = give_up
        self._roles: dict[str, list[_Role]] = {}
        """By task id."""

    def begin(self, task: Task) -> None:
        """Get the credentials of a task that is about to go to the agent."""
        if task.id not in self._roles:
            self._roles[task.id] = [
                self._begin_role(task, member) for member in _MEMBERS if member in task.message
            ]

    def go_on(self, task: Task, *, anew: bool) -> None:
        """Care for the credentials of a task that the agent has; `anew`: it has lost them."""
        self.begin(task)
        for role in self._roles[task.id]:
            if anew:
                role.kept.taken = None
            role.known.set()

    def is_ready(self, task_id: str) -> bool:
        """Whether a task need not wait for credentials."""
        return all(role.settled.is_set() for role in self._roles.get(task_id, []))

    async def wait_ready(self, task_id: str) -> None:
        """Return when a task need not wait for credentials any longer."""
        try:
            async with asyncio.timeout(WAIT_S):
                for role in self._roles.get(task_id, []):
                    await role.settled.wait()
        except TimeoutError:
            log.warning("task %s: goes out without its credentials, which follow", task_id)

    def is_refused(self, task_id: str) -> bool:
        """Whether a task is to end because a role can't be had."""
        return any(role.refused for role in self._roles.get(task_id, []))

    def complete(self, task: Task, *, is_new: bool) -> Json:
        """Return the message of a task with the credentials there are.

        `is_new`: no agent has heard of the task, so that this message is what it goes by.
        """
        message = dict(task.message)
        for role in self._roles.get(task.id, []):
            minted = role.kept.minted
            if minted is None or minted.keys.expires_at <= datetime.now(UTC):
                message[role.member] = role.stated.to_wire()
                continue
            message[role.member] = _render(role.stated, minted).to_wire()
            if is_new and not role.known.is_set():
                role.sent = minted.keys
        return message

    def note_taken(self, task_id: str) -> None:
        """The agent has acknowledged the message of a task."""
        for role in self._roles.get(task_id, []):
            if role.sent is not None and not role.known.is_set():
                role.kept.taken = role.sent
            role.known.set()

    def note_ack(self, ack: IAMRoleCredentialsAckRequest) -> None:
        """The agent has acknowledged a push."""
        for roles in self._roles.values():
            for role in roles:
                if role.message_id and role.message_id == ack.message_id:
                    role.kept.taken = role.sent
                    role.acked.set()

    def forget(self, task_ids: Collection[str]) -> None:
        """Keep nothing of these tasks."""
        for task_id in self._roles.keys() & set(task_ids):
            for role in self._roles.pop(task_id):
                if role.job is not None:
                    role.job.cancel()

    async def close(self) -> None:
        """End every job."""
        jobs = [r.job for roles in self._roles.values() for r in roles if r.job is not None]
        self.forget(list(self._roles))
        if jobs:
            await asyncio.wait(jobs)

    def _begin_role(self, task: Task, member: str) -> _Role:
        stated = RoleCredentialsMessage.model_validate(task.message[member])
        local = find_local_role(self._plane.settings.local_roles, stated.role_arn)
        if local is not None:
            stated = stated.model_copy(update={"endpoint_urls": local.all_endpoint_urls})
        role = _Role(
            task_arn=self._plane.arns.task(task.cluster, task.id),
            cluster_arn=self._plane.arns.cluster(task.cluster),
            member=member,
            stated=stated,
            kept=self._kept.find(stated.credentials_id, task.id, stated.role_arn),
        )
        role.job = asyncio.create_task(self._serve(role))
        return role

    async def _serve(self, role: _Role) -> None:
        try:
            while self._kept.has(role.stated.credentials_id) and not role.refused:
                await self._go_on(role)
        except (ConnectionError, TimeoutError):
            self._give_up()
        except Exception:
            log.exception("task %s: its credentials are not cared for", role.kept.task_id)
            self._give_up()

    async def _go_on(self, role: _Role) -> None:
        """Do the next thing for a role, and return when there may be another."""
        try:
            minted = await self._kept.refresh(role.kept, is_first=not role.known.is_set())
        except RoleError as error:
            if not error.may_pass:
                role.refused = await self._refuse(role.kept.task_id, str(error))
                role.settled.set()
            await _sleep_towards(role.kept.next_at)
            return
        role.settled.set()
        if not role.known.is_set():
            await role.known.wait()
        elif not role.kept.has_taken:
            await self._push(role, minted)
        else:
            await _sleep_towards(role.kept.next_at)

    async def _push(self, role: _Role, minted: Minted) -> None:
        """Send credentials until they are acknowledged, or new ones are due."""
        role.message_id, role.sent = new_uuid(), minted.keys
        role.acked.clear()
        frame = IAMRoleCredentialsMessage(
            message_id=role.message_id,
            task_arn=role.task_arn,
            task_cluster_arn=role.cluster_arn,
            role_type=_MEMBERS[role.member],
            role_credentials=_render(role.stated, minted),
        )
        resend_s = self._plane.settings.resend_s
        for pause_s in Backoff(first_s=resend_s, longest_s=LONGEST_RESEND * resend_s).pauses_s():
            await self._send(frame)
            try:
                async with asyncio.timeout(pause_s):
                    await role.acked.wait()
            except TimeoutError:
                if datetime.now(UTC) >= role.kept.next_at:
                    return
            else:
                return

    async def _refuse(self, task_id: str, reason: str) -> bool:
        """Let a task end that hasn't started yet; return whether it ends."""

        def change(task: Task, _: ContainerInstance) -> bool:
            return lifecycle.refuse_start(task, reason, round(time.time(), 3))

        try:
            ends = await change_task(self._plane, task_id, change)
        except ApiError:
            return True  # it was forgotten
        except SQLAlchemyError as error:
            log.error("task %s: is to end, which was not written: %s", task_id, error)
            return False
        if ends:
            self._wake()
        return ends


def _render(stated: RoleCredentialsMessage, minted: Minted) -> RoleCredentialsMessage:
    keys: dict[str, Any] = {
        "access_key_id": minted.keys.access_key,
        "secret_access_key": minted.keys.secret_key,
        "session_token": minted.keys.token,
        "expiration": minted.keys.expires_at,
        "made_from": minted.made_from,
    }
    said = stated.model_dump(include={"credentials_id", "role_arn", "endpoint_urls"})
    return RoleCredentialsMessage(**said, **keys)


async def _sleep_towards(moment: datetime) -> None:
    left_s = (moment - datetime.now(UTC)).total_seconds()
    await asyncio.sleep(max(0.0, min(left_s, LONGEST_SLEEP_S)))
