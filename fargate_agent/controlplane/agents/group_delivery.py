"""Security groups on their way to one agent: with its tasks, and pushed when they have changed.

An agent is told the members that other agents have, and knows its own. So the tasks of a single
agent come and go without a message about their groups.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.backoff import Backoff
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.announcements import SECURITY_GROUPS
from fargate_agent.controlplane.state.model import Task
from fargate_agent.controlplane.vpc.groups import (
    read_agent_groups,
    read_group_messages,
    read_group_versions,
)
from fargate_agent.parallel import first_of
from fargate_agent.wire.messages import Frame, SecurityGroupsMessage
from fargate_agent.wire.security_groups import SecurityGroupMessage

log = logging.getLogger(__name__)

GATHER_S: Final = 0.1
"""How long changes are gathered: many tasks start and stop together."""
LONGEST_RESEND: Final = 6
"""A push that isn't acknowledged is sent again ever later, up to so many times `resend_s`."""
MANY_MEMBERS: Final = 64
"""A message about a task repeats no group with so many: 1,000 of them are 13 kB."""
FORGOTTEN_AFTER: Final = 3
"""A message about a task that wasn't sent again for so many times `resend_s` won't be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Carried:
    """Groups that are on their way with a task, whose message is sent again until it is taken."""

    groups: tuple[SecurityGroupMessage, ...]
    at: float
    """On the monotonic clock."""
    is_first: bool
    """Else it isn't known which of the messages is acknowledged."""


class GroupDelivery:
    """Brings security groups to an agent, as long as the connection lasts."""

    def __init__(
        self,
        plane: Plane,
        instance_id: str,
        arns: tuple[str, str],
        send: Callable[[Frame], Awaitable[None]],
    ) -> None:
        """`arns` are those of the cluster and of the container instance."""
        self._plane = plane
        self._instance_id = instance_id
        self._cluster_arn, self._instance_arn = arns
        self._send = send
        self._sent: dict[str, SecurityGroupMessage] = {}
        """What the agent was sent last, be it with a task."""
        self._told: dict[str, SecurityGroupMessage] = {}
        """What the agent has acknowledged, if nothing else was sent since."""
        self._carried: dict[str, _Carried] = {}
        """By the id of the task."""
        self._leaves_carried = False
        """Whether the last look has left out what tasks bring."""
        self._versions: dict[str, int] = {}
        """Of what was looked at last."""
        self._message_id = ""
        """Of the push that was sent last."""
        self._pushed: dict[str, list[SecurityGroupMessage]] = {}
        """What is on its way, by the ids of the messages."""
        self._acked = asyncio.Event()
        self.turn: Final = asyncio.Lock()
        """Held from reading groups to sending them, so that an older state never goes out last."""

    async def render(self, task: Task) -> list[SecurityGroupMessage]:
        """Return the groups of a task as they are now, but for large ones that the agent knows so.

        The caller has the turn until it sends them.

        Raises:
            SQLAlchemyError: the database can't be read.
        """
        async with self._plane.store.read() as session:
            found = await read_group_messages(
                session, task.eni.security_groups, except_agent=self._instance_id
            )
        groups = [
            group
            for group in found
            if len(group.members) < MANY_MEMBERS or self._told.get(group.id) != group
        ]
        self._note_sent(groups)
        now = time.monotonic()
        is_first = self._carried.pop(task.id, None) is None
        self._carried[task.id] = _Carried(groups=tuple(groups), at=now, is_first=is_first)
        gone = now - FORGOTTEN_AFTER * self._plane.settings.resend_s
        while self._carried[oldest := next(iter(self._carried))].at < gone:
            del self._carried[oldest]  # its task has ended before it was taken
        return groups

    def note_taken(self, task_id: str) -> None:
        """The agent has acknowledged the message of a task, and so its groups."""
        carried = self._carried.pop(task_id, None)
        if carried is not None and carried.is_first:
            self._note_told(carried.groups)

    def note_ack(self, message_id: str) -> None:
        """The agent has acknowledged a message; it may be another one's."""
        self._note_told(self._pushed.pop(message_id, ()))
        if message_id == self._message_id:
            self._acked.set()

    async def serve(self) -> None:
        """Tell the agent all groups, and then what changes, until cancelled."""
        with self._plane.announcements.listening(SECURITY_GROUPS) as news:
            is_whole = True
            while True:
                news.clear()
                try:
                    await self._tell(news, is_whole=is_whole)
                except SQLAlchemyError as error:
                    log.error("agent %s: security groups not sent: %s", self._instance_id, error)
                    await asyncio.sleep(self._plane.settings.resend_s)
                    continue
                is_whole = False
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience_s()):
                        await news.wait()
                await asyncio.sleep(GATHER_S)

    def _patience_s(self) -> float | None:
        """Return after what time to look again without news: a task may end on its way."""
        return self._plane.settings.resend_s if self._leaves_carried else None

    async def _tell(self, news: asyncio.Event, *, is_whole: bool) -> None:
        """Return when the agent has acknowledged how things are.

        What changes meanwhile is sent without waiting for that: it may be a rule that is revoked.
        """
        resend_s = self._plane.settings.resend_s
        for pause_s in Backoff(first_s=resend_s, longest_s=LONGEST_RESEND * resend_s).pauses_s():
            async with self.turn:
                changed = await self._read_changed(is_whole=is_whole)
                if not changed and not is_whole:
                    return
                self._message_id = new_uuid()
                self._pushed[self._message_id] = changed
                self._acked.clear()
                self._note_sent(changed)
                await self._send(
                    SecurityGroupsMessage(
                        message_id=self._message_id,
                        cluster_arn=self._cluster_arn,
                        container_instance_arn=self._instance_arn,
                        groups=tuple(changed),
                        is_whole=is_whole,
                    )
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await first_of(_is_set(self._acked), _is_set(news))
            if self._acked.is_set():
                self._pushed.clear()
                return
            if news.is_set():
                news.clear()
                await asyncio.sleep(GATHER_S)
            self._versions.clear()  # what wasn't acknowledged is sent again

    def _note_told(self, groups: Iterable[SecurityGroupMessage]) -> None:
        for group in groups:
            if self._sent.get(group.id) == group:  # else something newer is on its way
                self._told[group.id] = group

    def _note_sent(self, groups: Iterable[SecurityGroupMessage]) -> None:
        """What the agent knew of groups counts no more once it is sent something else."""
        for group in groups:
            self._sent[group.id] = group
            if self._told.get(group.id) != group:
                self._told.pop(group.id, None)

    async def _read_changed(self, *, is_whole: bool) -> list[SecurityGroupMessage]:
        async with self._plane.store.read() as session:
            group_ids = await read_agent_groups(session, self._instance_id)
            versions = await read_group_versions(session, group_ids)
            if versions == self._versions and not is_whole and not self._leaves_carried:
                return []
            groups = await read_group_messages(session, group_ids, except_agent=self._instance_id)
        self._versions, self._leaves_carried = versions, False
        if is_whole:
            return groups
        changed = [group for group in groups if self._told.get(group.id) != group]
        left = [group for group in changed if not self._is_carried(group)]
        self._leaves_carried = len(left) < len(changed)
        return left

    def _is_carried(self, group: SecurityGroupMessage) -> bool:
        """Whether a task that goes out now, or will go out again, brings a group as it is."""
        since = time.monotonic() - self._plane.settings.resend_s
        return self._sent.get(group.id) == group and any(
            group in carried.groups for carried in self._carried.values() if carried.at > since
        )


async def _is_set(event: asyncio.Event) -> None:
    await event.wait()
