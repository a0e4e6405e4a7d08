"""Which agents can be reached, as it stands in the database: a lease that its process renews.

An agent that is away for a moment is waited for. One that stays away has its tasks shown as
disconnected; they are what they were when it comes back, because it goes on with them meanwhile.
Those that it had not taken yet are given up in time, so that their clients can go on.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from sqlalchemy import Select, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from fargate_agent.controlplane.agents.leases import is_running, next_lease
from fargate_agent.controlplane.agents.served import serves
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.announcements import AGENTS, instance_topic
from fargate_agent.controlplane.state.model import LIVE, ContainerInstance, Task
from fargate_agent.controlplane.state.store import announce
from fargate_agent.controlplane.tasks import lifecycle
from fargate_agent.controlplane.tasks.changes import changing

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5
"""How often silent agents are looked for."""
START_TIMEOUT_S: Final = 5 * 60
"""How long a task waits for an agent that went away before it took the task. Longer than an agent
needs to come back, be it with its machine. ECS names no time."""


async def note_connected(plane: Plane, instance_id: str, connection: str) -> None:
    """The connection is the instance's from now on, whichever it had before."""
    async with plane.store.write() as session:
        instance = await session.get_one(ContainerInstance, instance_id)
        instance.connection = connection
        instance.connected_until = next_lease()
        await _tell_tasks(plane, session, instance, connected=True)
        announce(session, AGENTS)
        announce(session, instance_topic(instance_id))  # so the one before hears that it is over


async def note_disconnected(plane: Plane, instance_id: str, connection: str) -> None:
    """The connection has ended; another that has taken its place stays."""
    async with plane.store.write() as session:
        await session.execute(
            update(ContainerInstance)
            .where(ContainerInstance.id == instance_id, ContainerInstance.connection == connection)
            .values(connected_until=time.time())
        )
        announce(session, AGENTS)


async def renew(plane: Plane, connections: Sequence[str]) -> None:
    """The process that holds these connections is alive."""
    async with plane.store.write() as session:
        await session.execute(
            update(ContainerInstance)
            .where(ContainerInstance.connection.in_(connections))
            .values(connected_until=next_lease())
        )


def expect(session: AsyncSession, instance: ContainerInstance) -> None:
    """An agent that has just registered will be connected soon: RunTask waits for it."""
    if instance.connected_until < time.time():
        instance.connected_until = time.time()
    announce(session, AGENTS)


async def wait_for_agent(plane: Plane, cluster: str) -> None:
    """Return when an agent that serves the cluster is connected; at once if none is registered.

    An agent that restarts is away for a moment; after `agent_grace_s` it counts as gone. When this
    process has just started, all of them may be about to come.
    """
    with plane.announcements.listening(AGENTS) as news, suppress(TimeoutError):
        async with asyncio.timeout(plane.settings.agent_grace_s):
            while True:
                news.clear()
                async with plane.store.read() as session:
                    leases = await _read_leases(session, cluster)
                newest = max([*leases, plane.started_at]) if leases else 0.0
                if any(is_running(lease) for lease in leases):
                    return
                patience_s = newest + plane.settings.agent_grace_s - time.time()
                if patience_s <= 0:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        await news.wait()


async def watch_silence(plane: Plane) -> None:
    """Show the tasks of agents that stay away as disconnected, until cancelled.

    Those that an agent hasn't taken end when it stays away for longer.
    """
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            async with plane.store.read() as session:
                found = (await session.scalars(_silent(plane))).all()
                untaken = (await session.scalars(_untaken(plane).with_only_columns(Task.id))).all()
            if untaken:
                await _give_up(plane)
            if found:
                await _note_silence(plane)
        except SQLAlchemyError as error:
            log.error("agents that are gone were not looked for: %s", error)


async def _note_silence(plane: Plane) -> None:
    async with plane.store.write() as session:
        for instance in (await session.scalars(_silent(plane))).all():
            log.warning("agent %s: silent for %.0f s", instance.id, plane.settings.agent_grace_s)
            await _tell_tasks(plane, session, instance, connected=False)


async def _give_up(plane: Plane) -> None:
    """An agent that comes back isn't told of these tasks; if it did get one, it is told to stop."""
    now = round(time.time(), 3)
    async with plane.store.write() as session:
        for task, instance in (await session.execute(_untaken(plane))).all():
            with changing(plane, session, task, instance):
                lifecycle.give_up(task, now)
            log.warning("task %s: agent %s went away before it took it", task.id, instance.id)


async def _tell_tasks(
    plane: Plane, session: AsyncSession, instance: ContainerInstance, *, connected: bool
) -> None:
    instance.silent = not connected
    live = select(Task).where(
        Task.instance_id == instance.id,
        LIVE,
        Task.connected.is_not(connected),
    )
    for task in (await session.scalars(live)).all():
        with changing(plane, session, task, instance):
            lifecycle.note_connected(task, connected=connected)


async def _read_leases(session: AsyncSession, cluster: str) -> list[float]:
    active = select(ContainerInstance).where(ContainerInstance.status == "ACTIVE")
    found = await session.scalars(active.options(defer(ContainerInstance.document)))
    return [instance.connected_until for instance in found if serves(instance, cluster)]


def _silent(plane: Plane) -> Select[ContainerInstance]:
    return select(ContainerInstance).where(
        ContainerInstance.status != "INACTIVE",
        ~ContainerInstance.silent,
        ContainerInstance.connected_until < time.time() - plane.settings.agent_grace_s,
    )


def _untaken(plane: Plane) -> Select[Task, ContainerInstance]:
    """Select tasks that an agent was to take which is gone for good.

    A process that has just started may be what the agents have waited for: then there are none.
    """
    seen_before = time.time() - max(START_TIMEOUT_S, plane.settings.agent_grace_s)
    if plane.started_at > seen_before:
        seen_before = 0.0
    return (
        select(Task, ContainerInstance)
        .join(ContainerInstance, ContainerInstance.id == Task.instance_id)
        .where(
            LIVE,
            Task.last_status == "PROVISIONING",
            Task.delivery != "ACKED",
            ContainerInstance.connected_until < seen_before,
        )
    )
