"""What tasks have used is forgotten after a day, or with the task if that is sooner."""

from typing import Final

from sqlalchemy import delete, exists, func, select

from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.model import Task, TaskMetrics
from fargate_agent.controlplane.state.store import Store

METRICS_RETENTION_S: Final = 24 * 3600
SLICE_S: Final = 60
"""Of the past that goes in one transaction: three rows for each task."""

_OLDEST: Final = select(func.min(TaskMetrics.at))


async def forget_metrics(settings: ControlPlaneSettings, store: Store, now_s: float) -> None:
    """Forget what is too old, in transactions that are short, so that nobody waits long.

    A task that is forgotten takes its rows along, but it may have 4,320: so they go before.

    Raises:
        SQLAlchemyError: the database could not do it.
    """
    async with store.read() as session:
        oldest = await session.scalar(_OLDEST)
        ended = select(Task.id).where(
            Task.last_status == "STOPPED",
            Task.stopped_at < now_s - settings.stopped_task_retention_s,
            exists().where(TaskMetrics.task_id == Task.id),
        )
        task_ids = (await session.scalars(ended)).all()
    limit = int(now_s - METRICS_RETENTION_S)
    while oldest is not None and oldest < limit:
        end = min(oldest + SLICE_S, limit)
        async with store.write() as session:
            await session.execute(delete(TaskMetrics).where(TaskMetrics.at < end))
            oldest = await session.scalar(_OLDEST)
    for task_id in task_ids:
        async with store.write() as session:
            await session.execute(delete(TaskMetrics).where(TaskMetrics.task_id == task_id))
