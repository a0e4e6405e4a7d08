"""The agents' websockets, as far as this process holds them.

One connection serves one container instance; a new one takes the place of the old one.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.controlplane.agents import connections
from fargate_agent.controlplane.agents.agent_session import AgentSession
from fargate_agent.controlplane.agents.opened import Opened
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.roles.kept import TaskRoles
from fargate_agent.controlplane.state.announcements import instance_topic
from fargate_agent.controlplane.state.model import LIVE, Task

log = logging.getLogger(__name__)


class Sessions:
    """The connections that this process holds, by container instance.

    Which connection is an instance's stands in the database, because another process may hold the
    next one.
    """

    def __init__(self, plane: Plane, roles: TaskRoles) -> None:
        self._plane = plane
        self._roles = roles
        self._open: dict[str, AgentSession] = {}
        self._closed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._open)

    async def close(self) -> None:
        """Return when every connection has ended."""
        for session in self._open.values():
            session.over.set()
        async with self._closed:
            await self._closed.wait_for(lambda: not self._open)

    async def serve(self, opened: Opened) -> None:
        """Talk to one agent until the connection ends."""
        connection, instance = new_uuid(), opened.instance
        with self._plane.announcements.listening(instance_topic(instance.id)) as wake:
            session = AgentSession(opened, self._plane, self._roles, connection, wake)
            self._open[connection] = session
            log.info("agent %s: connected", instance.id)
            try:
                await self._plane.store.insist(
                    partial(connections.note_connected, self._plane, instance.id, connection)
                )
                await session.run()
            except (ConnectionError, TimeoutError, SQLAlchemyError) as error:
                log.info("agent %s: connection lost: %s", instance.id, str(error) or "it is silent")
            finally:
                del self._open[connection]
                with suppress(SQLAlchemyError):  # then the lease runs out
                    await connections.note_disconnected(self._plane.store, instance.id, connection)
                async with self._closed:
                    self._closed.notify_all()
                log.info("agent %s: disconnected", instance.id)

    async def renew(self) -> None:
        """Note in the database that the agents of this process are connected.

        Those whose key isn't good any more are cut off. The credentials of tasks that have ended
        are forgotten.

        Raises:
            SQLAlchemyError: the database could not do it.
        """
        for session in list(self._open.values()):
            await session.check_key()
        held = [id_ for id_, session in self._open.items() if not session.over.is_set()]
        if held:
            await connections.renew(self._plane.store, held)
        await self._forget_ended()

    async def _forget_ended(self) -> None:
        known = self._roles.task_ids
        if not known:
            return
        async with self._plane.store.read() as session:
            live = set(await session.scalars(select(Task.id).where(LIVE)))
        self._roles.forget(known - live)
        for one in self._open.values():
            one.forget(known - live)
