"""What follows from a change of a task, in the same transaction: an event, room, who is woken."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from fargate_agent.controlplane.agents import capacity
from fargate_agent.controlplane.history.events import render_task_event
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state import announcements
from fargate_agent.controlplane.state.model import ContainerInstance, Task
from fargate_agent.controlplane.state.store import announce


@contextmanager
def changing(
    plane: Plane, session: AsyncSession, task: Task, instance: ContainerInstance
) -> Iterator[None]:
    """Let the body change a task of an instance, by the functions of `lifecycle`.

    A task that has a new version is an event; one that has ended gives back its room.
    """
    version, status = task.version, task.last_status
    yield
    if task.version == version:
        return
    note_task(plane, session, task)
    if task.last_status == "STOPPED" and status != "STOPPED":
        capacity.release(plane, instance, task)
        announce(session, announcements.AGENTS)
        announce(session, announcements.instance_topic(instance.id))


def note_task(plane: Plane, session: AsyncSession, task: Task) -> None:
    """Write down how a task is now, for whoever follows."""
    session.add(render_task_event(plane, task, round(time.time(), 3)))
    announce(session, announcements.EVENTS)
    if task.deployment_id is not None:
        announce(session, announcements.SERVICES)
