"""The capacity manager: which instance takes a task, what is reserved there, what is kept warm.

A reservation stands in the row of the instance and is written with the task, in one transaction.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.controlplane.agents.leases import has_lease, is_running
from fargate_agent.controlplane.agents.served import serves
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.announcements import AGENTS
from fargate_agent.controlplane.state.model import ContainerInstance, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import Store
from fargate_agent.controlplane.tasks.overrides import TaskSize

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 30
"""How often the warm pool is looked at even if nothing is announced."""

_ONE_TASK: Final = "one-task-per-instance"


class InstanceProvider(Protocol):
    """Where container instances come from, and where they go."""

    async def provide(self, count: int) -> None:
        """Bring so many more; each registers when it is up. May be repeated until they are."""

    async def retire(self, instance_ids: Sequence[str]) -> None:
        """Take away instances that get no tasks any more. May be repeated."""


class RegisteredAgents(InstanceProvider):
    """Agents that register by themselves: none can be made; one that is retired registers anew."""

    def __init__(self) -> None:
        self._missing = 0

    async def provide(self, count: int) -> None:
        if count and count != self._missing:
            log.warning("the warm pool lacks %d agents: start more of them", count)
        self._missing = count

    async def retire(self, instance_ids: Sequence[str]) -> None:
        for instance_id in instance_ids:
            log.debug("agent %s: registers as another instance", instance_id)


async def find_usable(
    settings: ControlPlaneSettings, session: Session, cluster: str
) -> list[ContainerInstance]:
    """Return the connected instances that take tasks of a cluster, if they have room."""
    found = await find_serving(settings, session, cluster)
    return [instance for instance in found if is_running(instance.connected_until)]


async def find_serving(
    settings: ControlPlaneSettings, session: Session, cluster: str
) -> list[ContainerInstance]:
    """Return the instances that take tasks of a cluster, connected or not."""
    chosen = select(ContainerInstance).where(*_takes_tasks(settings.capacity_mode))
    found = await session.scalars(chosen.order_by(ContainerInstance.registered_at))
    return [instance for instance in found if serves(instance, cluster)]


def choose_instance(
    settings: ControlPlaneSettings, usable: Sequence[ContainerInstance], size: TaskSize
) -> ContainerInstance | None:
    """Return the instance that a task fits best; None if there is none with room.

    Best is where the least is left over. If none has room and overcommitting is allowed, the one
    with the fewest tasks takes it.
    """
    one_task = settings.capacity_mode == _ONE_TASK
    instances = [instance for instance in usable if not (one_task and instance.served)]
    fitting = [instance for instance in instances if _fits(instance, size)]
    if fitting:
        return min(fitting, key=lambda instance: _left_over(instance, size))
    if settings.overcommit:
        return min(instances, key=lambda instance: instance.reserved_tasks, default=None)
    return None


def reserve(instance: ContainerInstance, size: TaskSize) -> None:
    """Take room for a task that is being made."""
    instance.served = True
    instance.reserved_tasks += 1
    instance.reserved_cpu_units += size.cpu_units
    instance.reserved_memory_mib += size.memory_mib
    instance.reserved_storage_gib += size.storage_gib


def release(settings: ControlPlaneSettings, instance: ContainerInstance, task: Task) -> None:
    """Give back the room of a task that has ended; an instance for one task is retired then."""
    instance.reserved_tasks -= 1
    instance.reserved_cpu_units -= task.cpu_units
    instance.reserved_memory_mib -= task.memory_mib
    instance.reserved_storage_gib -= task.storage_gib
    one_task = settings.capacity_mode == _ONE_TASK
    if instance.reserved_tasks == 0 and one_task:
        instance.status = "INACTIVE"


async def keep_warm(plane: Plane, provider: InstanceProvider) -> None:
    """Ask for instances when too few are free, and have those taken away that are retired."""
    with plane.announcements.listening(AGENTS) as news:
        while True:
            news.clear()
            try:
                await _look_after_pool(plane.settings, plane.store, provider)
            except SQLAlchemyError as error:
                log.error("the warm pool was not looked after: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await news.wait()


async def _look_after_pool(
    settings: ControlPlaneSettings, store: Store, provider: InstanceProvider
) -> None:
    async with store.read() as session:
        free = await session.scalar(
            select(func.count())
            .select_from(ContainerInstance)
            .where(
                *_takes_tasks(settings.capacity_mode),
                has_lease(),
                ContainerInstance.reserved_tasks == 0,
            )
        )
        retired = await session.scalars(
            select(ContainerInstance.id).where(ContainerInstance.status == "INACTIVE", has_lease())
        )
        ids = retired.all()
    await provider.provide(max(settings.warm_pool - (free or 0), 0))
    await provider.retire(ids)


def _takes_tasks(mode: str) -> list[ColumnElement[bool]]:
    takes = [ContainerInstance.status == "ACTIVE"]
    if mode == _ONE_TASK:
        takes.append(~ContainerInstance.served)
    return takes


def _fits(instance: ContainerInstance, size: TaskSize) -> bool:
    return all(left is None or left >= 0 for left in _rests(instance, size))


def _left_over(instance: ContainerInstance, size: TaskSize) -> float:
    """What part of the instance would be left: 0 if the task fills it, 1 of what isn't known."""
    totals = (instance.cpu_units, instance.memory_mib)
    rests = _rests(instance, size)[: len(totals)]
    return sum(
        1.0 if rest is None or not total else rest / total
        for rest, total in zip(rests, totals, strict=True)
    )


def _rests(instance: ContainerInstance, size: TaskSize) -> list[int | None]:
    return [
        None if total is None else total - reserved - wanted
        for total, reserved, wanted in (
            (instance.cpu_units, instance.reserved_cpu_units, size.cpu_units),
            (instance.memory_mib, instance.reserved_memory_mib, size.memory_mib),
            (instance.storage_gib, instance.reserved_storage_gib, size.storage_gib),
        )
    ]
