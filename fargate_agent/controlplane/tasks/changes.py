"""What follows from a change of a task, in the same transaction: an event, room, who is woken."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import defer

from fargate_agent.controlplane.agents import capacity
from fargate_agent.controlplane.errors import ApiError, invalid_parameter
from fargate_agent.controlplane.history.events import render_replacements, render_task_event
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state import announcements
from fargate_agent.controlplane.state.model import ContainerInstance, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import add_event, announce, note_members
from fargate_agent.controlplane.tasks.replacements import list_replacements

Result = TypeVar("Result")
Change = Callable[[Task, ContainerInstance], Result]
"""Changes a task of an instance by the functions of `lifecycle` and returns what the caller is to
learn of it, or raises `ApiError` before it has changed anything."""


async def change_task(plane: Plane, task_id: str, change: Change[Result]) -> Result:
    """Change a task; changes of tasks that come together share a transaction.

    Returns what `change` returned, once it is on disk.

    Raises:
        ApiError: there is no such task, or what `change` raises.
        SQLAlchemyError: the database could not do it.
    """
    result: Result = await plane.store.write_together(
        _change_tasks, _Wanted(plane, task_id, change)
    )
    return result


@dataclass(frozen=True, slots=True)
class _Wanted(Generic[Result]):
    plane: Plane
    task_id: str
    change: Change[Result]


async def _change_tasks(
    session: Session, wanted: Sequence[_Wanted[Result]]
) -> list[Result | ApiError]:
    chosen = (
        select(Task, ContainerInstance)
        .join(ContainerInstance, ContainerInstance.id == Task.instance_id)
        .where(Task.id.in_([one.task_id for one in wanted]))
        .options(defer(Task.message), defer(ContainerInstance.document))
    )
    found = {task.id: (task, instance) for task, instance in await session.execute(chosen)}
    results: list[Result | ApiError] = []
    for one in wanted:
        if one.task_id not in found:
            results.append(task_not_found())
            continue
        task, instance = found[one.task_id]
        try:
            with changing(one.plane, session, task, instance):
                result = one.change(task, instance)
            results.append(result)
        except ApiError as error:
            results.append(error)
    return results


def task_not_found() -> ApiError:
    """Say that there is no such task in the cluster."""
    return invalid_parameter("The referenced task was not found.")


@contextmanager
def changing(
    plane: Plane, session: Session, task: Task, instance: ContainerInstance
) -> Iterator[None]:
    """Let the body change a task of an instance, by the functions of `lifecycle`.

    A task that has a new version is an event, and so is what was replaced on its machine; one that
    has ended gives back its room.
    """
    version, status, replaced = task.version, task.last_status, list_replacements(task)
    yield
    if task.version == version:
        return
    if news := list_replacements(task)[len(replaced) :]:
        add_event(session, render_replacements(plane.arns, task, news, round(time.time(), 3)))
    note_task(plane.arns, session, task)
    if task.last_status == "STOPPED" and status != "STOPPED":
        capacity.release(plane.settings, instance, task)
        note_members(session, task.eni.security_groups)
        if instance.reserved_tasks == 0:  # it is free, or retired
            announce(session, announcements.AGENTS)
            announce(session, announcements.instance_topic(instance.id))


def note_task(arns: Arns, session: Session, task: Task) -> None:
    """Write down how a task is now, for whoever follows."""
    add_event(session, render_task_event(arns, task, round(time.time(), 3)))
    if task.deployment_id is not None:
        announce(session, announcements.SERVICES)
        announce(session, announcements.NAMES)
