"""Security groups on their way to one agent: with its tasks, and pushed when they have changed.

An agent is told the members that other agents have, and knows its own. So the tasks of a single
agent come and go without a message about their groups.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
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
from fargate_agent.wire.messages import Frame, SecurityGroupsMessage
from fargate_agent.wire.security_groups import SecurityGroupMessage

log = logging.getLogger(__name__)

GATHER_S: Final = 0.1
"""How long changes are gathered: many tasks start and stop together."""
LONGEST_RESEND: Final = 6
"""A push that isn't acknowledged is sent again ever later, up to so many times `resend_s`."""


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
        self._told: dict[str, SecurityGroupMessage] = {}
        """What the agent has acknowledged."""
        self._versions: dict[str, int] = {}
        """Of what was looked at last."""
        self._message_id = ""
        self._acked = asyncio.Event()
        self.turn: Final = asyncio.Lock()
        """Held from reading groups to sending them, so that an older state never goes out last."""

    async def render(self, task: Task) -> list[SecurityGroupMessage]:
        """Return the groups of a task as they are now. The caller has the turn until it sends them.

        Raises:
            SQLAlchemyError: the database can't be read.
        """
        async with self._plane.store.read() as session:
            return await read_group_messages(
                session, task.eni.security_groups, except_agent=self._instance_id
            )

    def note_ack(self, message_id: str) -> None:
        """The agent has acknowledged a message; it may be another one's."""
        if message_id == self._message_id:
            self._acked.set()

    async def serve(self) -> None:
        """Tell the agent all groups, and then what changes, until cancelled."""
        with self._plane.announcements.listening(SECURITY_GROUPS) as news:
            is_whole = True
            while True:
                news.clear()
                try:
                    await self._tell(is_whole=is_whole)
                except SQLAlchemyError as error:
                    log.error("agent %s: security groups not sent: %s", self._instance_id, error)
                    await asyncio.sleep(self._plane.settings.resend_s)
                    continue
                is_whole = False
                await news.wait()
                await asyncio.sleep(GATHER_S)

    async def _tell(self, *, is_whole: bool) -> None:
        """Return when the agent has acknowledged how things are."""
        resend_s = self._plane.settings.resend_s
        for pause_s in Backoff(first_s=resend_s, longest_s=LONGEST_RESEND * resend_s).pauses_s():
            async with self.turn:
                changed = await self._read_changed(is_whole=is_whole)
                if not changed and not is_whole:
                    return
                self._message_id = new_uuid()
                self._acked.clear()
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
                    await self._acked.wait()
                self._told |= {group.id: group for group in changed}
                return
            self._versions.clear()  # it may have changed again

    async def _read_changed(self, *, is_whole: bool) -> list[SecurityGroupMessage]:
        async with self._plane.store.read() as session:
            group_ids = await read_agent_groups(session, self._instance_id)
            versions = await read_group_versions(session, group_ids)
            if versions == self._versions and not is_whole:
                return []
            groups = await read_group_messages(session, group_ids, except_agent=self._instance_id)
        self._versions = versions
        return [group for group in groups if is_whole or self._told.get(group.id) != group]
