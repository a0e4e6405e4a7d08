"""Every 20 seconds what all tasks have used, as frames for the control plane."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from fargate_agent.plan import ContainerPlan
from fargate_agent.telemetry.outbox import Outbox
from fargate_agent.telemetry.sampler import Sampler, TaskMeter
from fargate_agent.wire.telemetry import (
    BUCKET_S,
    MAX_TASKS,
    ContainerMetric,
    MetricsMetadata,
    NetworkStatsSet,
    PublishMetricsRequest,
    RestartStatsSet,
    TaskMetric,
)

log = logging.getLogger(__name__)

SAMPLE_S: Final = 5
"""How often tasks are looked at: four samples in a bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """How often something is done, in seconds; a bucket is a multiple of a sample."""

    sample_s: float = SAMPLE_S
    bucket_s: float = BUCKET_S


class Publisher:
    """Samples, and at the end of every bucket hands frames to the outbox.

    Buckets begin at multiples of their length since 1970, and a few seconds later, so that not
    every agent sends at the same moment.
    """

    def __init__(
        self,
        sampler: Sampler,
        outbox: Outbox,
        find_instance: Callable[[], str],
        periods: Periods | None = None,
    ) -> None:
        """`find_instance` returns the ARN of the agent's container instance; empty before that."""
        self._sampler = sampler
        self._outbox = outbox
        self._find_instance = find_instance
        self._periods = periods or Periods()
        self._offset_s = random.uniform(0, self._periods.sample_s)  # noqa: S311 - no secret

    async def serve(self) -> None:
        """Sample and publish, until cancelled. What fails is lost: tasks go on without it."""
        sample_s, bucket_s = self._periods.sample_s, self._periods.bucket_s
        bucket = self._now_s() // bucket_s
        while True:
            await asyncio.sleep(sample_s - self._now_s() % sample_s)
            try:
                await self._sampler.sample()
                if (now := self._now_s() // bucket_s) != bucket:
                    bucket = now
                    await self.publish(bucket * bucket_s)
            except Exception:
                log.exception("what tasks have used isn't told this time")

    async def publish(self, at_s: float) -> None:
        """End the bucket at a moment, in seconds since 1970."""
        found = [metric for task in self._sampler.tasks.values() if (metric := render_task(task))]
        self._sampler.forget_ended()
        instance = self._find_instance()
        parts = [found[start : start + MAX_TASKS] for start in range(0, len(found), MAX_TASKS)]
        for number, part in enumerate(parts or [[]], start=1):
            metadata = MetricsMetadata(
                cluster=instance.partition("/")[2].rpartition("/")[0],
                container_instance=instance,
                message_id=str(uuid4()),
                fin=number >= len(parts),
                idle=not parts,
            )
            await self._outbox.put(
                PublishMetricsRequest(
                    metadata=metadata, timestamp=round(at_s * 1000), task_metrics=tuple(part)
                )
            )

    def _now_s(self) -> float:
        return time.time() - self._offset_s


def render_task(task: TaskMeter) -> TaskMetric | None:
    """Return the bucket of a task that ends; None if nothing was sampled."""
    network = task.network.drain()
    storage = task.storage.drain()
    containers = tuple(_render_containers(task, network))
    if not containers:
        return None
    plan = task.run.plan
    return TaskMetric(
        cluster_arn=plan.cluster_arn,
        task_arn=plan.arn,
        task_definition_family=plan.family,
        task_definition_version=plan.revision,
        container_metrics=containers,
        ephemeral_storage_metrics=storage,
    )


def _render_containers(
    task: TaskMeter, network: NetworkStatsSet | None
) -> Iterator[ContainerMetric]:
    for plan in task.run.plan.containers:
        meter = task.containers.get(plan.name)
        drained = None if meter is None else meter.drain()
        if drained is None:
            continue
        cpu, memory, storage = drained
        yield ContainerMetric(
            container_arn=plan.arn,
            container_name=plan.name,
            cpu_stats_set=cpu,
            memory_stats_set=memory,
            network_stats_set=network,
            storage_stats_set=storage,
            restart_stats_set=_count_restarts(task, plan),
        )
        network = None


def _count_restarts(task: TaskMeter, plan: ContainerPlan) -> RestartStatsSet | None:
    if plan.restart is None:
        return None
    return RestartStatsSet(restart_count=task.run.facts.containers[plan.name].restart_count)
