"""The instances of services: those that calls have registered, and tasks while they run.

A task is an instance from its RUNNING until it is to end. That follows from the row of the task, so
there is no instance whose task is gone, whoever was killed when.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, and_, or_, select

from fargate_agent.controlplane.state.discovery import InstanceRow
from fargate_agent.controlplane.state.model import Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tasks.health import is_passed

HEALTHY: Final = "HEALTHY"
UNHEALTHY: Final = "UNHEALTHY"

_COLUMNS: Final = (
    InstanceRow.service_id,
    InstanceRow.id,
    InstanceRow.attributes,
    InstanceRow.creator_request_id,
    InstanceRow.health,
    InstanceRow.task_id,
    Task.health_status,
    Task.connected,
)
_BEGINS: Final = and_(Task.desired_status == "RUNNING", Task.last_status != "STOPPED")
_RUNS: Final = and_(Task.desired_status == "RUNNING", Task.last_status == "RUNNING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance of a service."""

    service_id: str
    id: str
    attributes: dict[str, str]
    creator_request_id: str | None
    is_healthy: bool
    """Whether nothing speaks against it; it counts where the service has a health check."""
    is_task: bool


async def read_instances(
    session: Session, service_ids: Collection[str] | None = None
) -> list[Instance]:
    """Return the instances of some services, or of all, in the order of their ids."""
    chosen = (
        select(*_COLUMNS)
        .join_from(InstanceRow, Task, Task.id == InstanceRow.task_id, isouter=True)
        .where(or_(InstanceRow.task_id.is_(None), _RUNS))
        .order_by(InstanceRow.service_id, InstanceRow.id)
    )
    if service_ids is not None:
        chosen = chosen.where(InstanceRow.service_id.in_(service_ids))
    return [_render(row) for row in (await session.execute(chosen)).all()]


async def find_instance(session: Session, service_id: str, instance_id: str) -> Instance | None:
    """Return an instance of a service; None if it has none of that id."""
    found = await read_instances(session, [service_id])
    return next((instance for instance in found if instance.id == instance_id), None)


async def has_instances(session: Session, service_id: str) -> bool:
    """Whether a service has an instance, or a task that will be one."""
    return await session.scalar(_select_kept(service_id).limit(1)) is not None


def _select_kept(service_id: str) -> Select[str]:
    return (
        select(InstanceRow.id)
        .join_from(InstanceRow, Task, Task.id == InstanceRow.task_id, isouter=True)
        .where(InstanceRow.service_id == service_id, or_(InstanceRow.task_id.is_(None), _BEGINS))
    )


def _render(row: Sequence[Any]) -> Instance:
    service_id, id_, attributes, creator_request_id, health, task_id, task_health, connected = row
    is_well = task_id is None or (is_passed(task_health) and connected)
    return Instance(
        service_id=service_id,
        id=id_,
        attributes=attributes,
        creator_request_id=creator_request_id,
        is_healthy=health == HEALTHY and is_well,
        is_task=task_id is not None,
    )
