"""From the frames of an agent to rows: those of its own tasks, each bucket once.

A row stands for 20 seconds of a task, whatever is sent: so an agent that says too much can't fill
the disk. What can't be written is lost, and said in the log: nobody waits for it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.model import Task, TaskMetrics
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.telemetry.rows import make_row
from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.messages import Frame
from fargate_agent.wire.telemetry import (
    BUCKET_S,
    AckPublishMetric,
    PublishMetricsRequest,
    TaskMetric,
)

log = logging.getLogger(__name__)

MAX_AGE_S: Final = 300
"""An older bucket isn't kept. Source: amazon-ecs-agent, agent/stats, which sends none either."""
MAX_AHEAD_S: Final = 60
"""How far the clock of an agent may be ahead."""
MAX_PENDING: Final = 64
"""Frames of one agent, of 640 tasks, that wait to be written; one more is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bucket:
    instance_id: str
    at: int
    metrics: tuple[TaskMetric, ...]


class MetricsIntake:
    """Takes the frames of one connection."""

    def __init__(
        self, plane: Plane, instance_id: str, send: Callable[[Frame], Awaitable[None]]
    ) -> None:
        self._plane = plane
        self._instance_id = instance_id
        self._send = send
        self._jobs: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def take(self, frame: PublishMetricsRequest) -> None:
        """Have a frame written; never waits."""
        if len(self._jobs) >= MAX_PENDING:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("agent %s: telemetry comes too fast, and is dropped", self._instance_id)
            return
        job = asyncio.create_task(self._keep(frame))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def finish(self) -> None:
        """Return when what was taken is written."""
        if self._jobs:
            await asyncio.wait(self._jobs)

    async def _keep(self, frame: PublishMetricsRequest) -> None:
        at = find_bucket(frame.timestamp / 1000, time.time())
        try:
            if at is None:
                log.warning("agent %s: telemetry of another time is dropped", self._instance_id)
            elif frame.task_metrics:
                bucket = _Bucket(instance_id=self._instance_id, at=at, metrics=frame.task_metrics)
                await self._plane.store.write_together(_write_buckets, bucket)
            await self._send(AckPublishMetric(message=frame.metadata.message_id))
        except SQLAlchemyError as error:
            log.error("agent %s: telemetry was not written: %s", self._instance_id, error)
        except (ConnectionError, TimeoutError) as error:
            log.debug("agent %s: telemetry isn't acknowledged: %s", self._instance_id, error)


def find_bucket(at_s: float, now_s: float) -> int | None:
    """Return the bucket of a moment, in seconds since 1970; None if it is too old or to come."""
    if not now_s - MAX_AGE_S <= at_s <= now_s + MAX_AHEAD_S:
        return None
    return int(at_s // BUCKET_S) * BUCKET_S


async def _write_buckets(session: Session, buckets: Sequence[_Bucket]) -> list[None]:
    """Write what several agents have sent, in one statement."""
    ids = {parse_task_arn(one.task_arn).task_id for each in buckets for one in each.metrics}
    chosen = select(Task.id, Task.instance_id, Task.containers).where(Task.id.in_(ids))
    tasks = {row[0]: (row[1], row[2]) for row in await session.execute(chosen)}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for bucket in buckets:
        for metric in bucket.metrics:
            task_id = parse_task_arn(metric.task_arn).task_id
            instance_id, containers = tasks.get(task_id, ("", []))
            if instance_id != bucket.instance_id:
                log.debug("agent %s: task %s isn't its own", bucket.instance_id, task_id)
                continue
            document = make_row(metric, {one["name"] for one in containers})
            rows.setdefault(
                (task_id, bucket.at), {"task_id": task_id, "at": bucket.at, "document": document}
            )
    if rows:
        await session.with_connection(partial(_insert, list(rows.values())))
    return [None] * len(buckets)


def _insert(rows: list[dict[str, Any]], connection: Connection) -> None:
    """Write rows; one that is there stays as it is."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(TaskMetrics).on_conflict_do_nothing(), rows)
