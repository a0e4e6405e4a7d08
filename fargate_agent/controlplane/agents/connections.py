"""Which agents can be reached, as it stands in the database: a lease that its process renews.

An agent that is away for a moment is waited for. One that stays away has its tasks shown as
disconnected and is itself shown as inactive; all is what it was when it comes back, because it goes
on with its tasks meanwhile. Those that it had not taken yet are given up in time, so that their
clients can go on; the others when its machine is taken for lost, so that services replace them.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Final

from sqlalchemy import Select, select, update
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.controlplane.agents.capacity import find_serving
from fargate_agent.controlplane.agents.leases import LEASE_S, is_running, next_lease
from fargate_agent.controlplane.agents.places import find_places, find_subnets
from fargate_agent.controlplane.agents.sent import TAKEN
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.announcements import AGENTS, instance_topic
from fargate_agent.controlplane.state.model import LIVE, ContainerInstance, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import Store, announce
from fargate_agent.controlplane.tasks import lifecycle
from fargate_agent.controlplane.tasks.changes import changing
from fargate_agent.controlplane.tasks.launch import Launch

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5
"""How often leases are renewed and silent agents are looked for: a third of a lease."""
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


async def note_disconnected(store: Store, instance_id: str, connection: str) -> None:
    """The connection has ended; another that has taken its place stays."""
    async with store.write() as session:
        await session.execute(
            update(ContainerInstance)
            .where(ContainerInstance.id == instance_id, ContainerInstance.connection == connection)
            .values(connected_until=time.time())
        )
        announce(session, AGENTS)


async def renew(store: Store, connections: Sequence[str]) -> None:
    """The process that holds these connections is alive."""
    async with store.write() as session:
        await session.execute(
            update(ContainerInstance)
            .where(ContainerInstance.connection.in_(connections))
            .values(connected_until=next_lease())
        )


def expect(session: Session, instance: ContainerInstance) -> None:
    """An agent that has just registered will be connected soon: RunTask waits for it."""
    if instance.connected_until < time.time():
        instance.connected_until = time.time()
    announce(session, AGENTS)


async def wait_for_room(plane: Plane, launch: Launch) -> None:
    """Return when an agent can take a task; at once if none that is away could.

    An agent that restarts is away for a moment; after `agent_grace_s` it counts as gone. When this
    process has just started, all of them may be about to come.
    """
    with plane.announcements.listening(AGENTS) as news, suppress(TimeoutError):
        async with asyncio.timeout(plane.settings.agent_grace_s):
            while True:
                news.clear()
                patience_s = await _find_patience(plane, launch)
                if patience_s <= 0:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        await news.wait()


async def _find_patience(plane: Plane, launch: Launch) -> float:
    """Return for how long it makes sense to wait for an agent that may take a task; 0: not now."""
    async with plane.store.read() as session:
        found = await find_serving(plane.settings, session, launch.cluster)
    running = [instance for instance in found if is_running(instance.connected_until)]
    away = [instance for instance in found if not is_running(instance.connected_until)]
    able = [*chain.from_iterable(find_places(away, launch).values())]
    if not able or find_subnets(plane.settings, find_places(running, launch), launch.size):
        return 0.0
    newest = max(*(instance.connected_until for instance in able), plane.started_at)
    return newest + plane.settings.agent_grace_s - time.time()


async def watch_agents(plane: Plane, renew: Callable[[], Awaitable[None]]) -> None:
    """Renew the leases of this process, then look for agents that are gone, until cancelled.

    The tasks of an agent that stays away are shown as disconnected, and the agent as inactive. The
    tasks that it hasn't taken end when it stays away for longer, the others when its machine is
    taken for lost. Nobody is gone only because this process could not note that he is here.
    """
    able_since = looked_at = plane.started_at
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if (
            time.time() - looked_at > LOOK_EVERY_S + LEASE_S
        ):  # the machine slept, or its clock jumped
            able_since = time.time()
        try:
            await renew()
            await _look(plane, able_since)
        except SQLAlchemyError as error:
            able_since = time.time()
            log.error("agents may be taken for lost: %s", error)
        looked_at = time.time()


async def _look(plane: Plane, able_since: float) -> None:
    """Do what is due for agents that are away, of whom something would be known since a time."""

    def before(timeout_s: float) -> float:
        """Return when an agent must have been seen last to be gone for so long."""
        moment = time.time() - timeout_s
        return moment if able_since <= moment else 0.0

    grace_s = plane.settings.agent_grace_s
    silent = _silent(before(grace_s))
    untaken = _untaken(before(max(START_TIMEOUT_S, grace_s)))
    lost = _lost(before(plane.settings.lost_task_timeout_s))
    async with plane.store.read() as session:
        is_silent = (await session.scalars(silent.with_only_columns(ContainerInstance.id))).all()
        is_untaken = (await session.scalars(untaken.with_only_columns(Task.id))).all()
        is_lost = (await session.scalars(lost.with_only_columns(Task.id))).all()
    if is_untaken:
        await _end(plane, untaken, lifecycle.give_up)
    if is_lost:
        await _end(plane, lost, lifecycle.lose)
    if is_silent:
        await _note_silence(plane, silent)


async def _note_silence(plane: Plane, silent: Select[ContainerInstance]) -> None:
    async with plane.store.write() as session:
        for instance in (await session.scalars(silent)).all():
            log.warning("agent %s: silent for %.0f s", instance.id, plane.settings.agent_grace_s)
            await _tell_tasks(plane, session, instance, connected=False)


async def _end(
    plane: Plane, chosen: Select[Task, ContainerInstance], end: Callable[[Task, float], None]
) -> None:
    """An agent that comes back isn't told of these tasks; if it has one, it is told to stop it."""
    now = round(time.time(), 3)
    async with plane.store.write() as session:
        for task, instance in (await session.execute(chosen)).all():
            with changing(plane, session, task, instance):
                end(task, now)
            log.warning("task %s: agent %s is gone: %s", task.id, instance.id, task.stopped_reason)


async def _tell_tasks(
    plane: Plane, session: Session, instance: ContainerInstance, *, connected: bool
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


def _silent(seen_before: float) -> Select[ContainerInstance]:
    return select(ContainerInstance).where(
        ContainerInstance.status != "INACTIVE",
        ~ContainerInstance.silent,
        ContainerInstance.connected_until < seen_before,
    )


def _lost(seen_before: float) -> Select[Task, ContainerInstance]:
    """Select tasks of agents that are gone for good."""
    return (
        select(Task, ContainerInstance)
        .join(ContainerInstance, ContainerInstance.id == Task.instance_id)
        .where(LIVE, ContainerInstance.connected_until < seen_before)
    )


def _untaken(seen_before: float) -> Select[Task, ContainerInstance]:
    """Select those that the agent was to take and has not."""
    return _lost(seen_before).where(Task.last_status == "PROVISIONING", Task.delivery.not_in(TAKEN))
