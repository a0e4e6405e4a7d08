"""What the tasks of this agent use: read every few seconds, kept as meters."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fargate_agent.drivers import StorageUse
from fargate_agent.network.netlink import LinkStats
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.task.runner import TaskRun
from fargate_agent.task.status import ContainerStatus
from fargate_agent.telemetry.groups import GroupReader, GroupReading
from fargate_agent.telemetry.links import read_links
from fargate_agent.telemetry.meters import ContainerMeter, NetworkMeter, VolumeMeter

log = logging.getLogger(__name__)

FRESH_S: Final = 1.0
"""A reading that is younger isn't read again for somebody else who asks."""


@dataclass(slots=True)
class TaskMeter:
    """What one task uses."""

    run: TaskRun
    network: NetworkMeter = field(default_factory=NetworkMeter)
    storage: VolumeMeter = field(default_factory=VolumeMeter)
    containers: dict[str, ContainerMeter] = field(default_factory=dict)
    """By name; those that run, and those that have ended since the last bucket."""


@dataclass(frozen=True, slots=True)
class _Reading:
    at_s: float
    groups: dict[str, GroupReading]
    links: dict[str, LinkStats]
    storage: StorageUse | None


class Sampler:
    """Keeps a meter for each container that runs, and for network and volume of each task."""

    def __init__(
        self,
        reader: GroupReader,
        list_runs: Callable[[], Iterable[TaskRun]],
        cores: int,
        fresh_s: float = FRESH_S,
        *,
        measure: Callable[[Path], StorageUse | None] = lambda _: None,
    ) -> None:
        """`measure` says how full the volume in a task's directory is; None: it has none. Blocks.

        It may raise OSError.
        """
        self._reader = reader
        self._list_runs = list_runs
        self._cores = cores
        self._fresh_s = fresh_s
        self._measure = measure
        self._turn = asyncio.Lock()
        self._read_at_s = float("-inf")
        self.tasks: dict[str, TaskMeter] = {}
        """By task id."""

    async def sample(self) -> None:
        """Read all that runs, unless that was done just now."""
        async with self._turn:
            if time.monotonic() - self._read_at_s < self._fresh_s:
                return
            runs = {run.plan.id: run for run in self._list_runs()}
            wanted = [(run.plan, running_of(run)) for run in runs.values()]
            found = await asyncio.to_thread(self._read_all, [each for each in wanted if each[1]])
            self._read_at_s = time.monotonic()
            for task_id, reading in found.items():
                self._take(runs[task_id], reading)

    def forget_ended(self) -> None:
        """Drop what is kept of containers and tasks that run no more."""
        runs = {run.plan.id: run for run in self._list_runs()}
        for task_id in list(self.tasks):
            running = {one.name for one in running_of(runs[task_id])} if task_id in runs else set()
            meters = self.tasks[task_id].containers
            for name in meters.keys() - running:
                del meters[name]
            if not meters:
                del self.tasks[task_id]

    def _take(self, run: TaskRun, reading: _Reading) -> None:
        task = self.tasks.setdefault(run.plan.id, TaskMeter(run))
        for name, group in reading.groups.items():
            meter = task.containers.setdefault(name, ContainerMeter())
            meter.take(group, reading.at_s, self._cores)
        if reading.links:
            task.network.take(reading.links, reading.at_s)
        task.storage.take(reading.storage)

    def _read_all(self, wanted: list[tuple[TaskPlan, list[ContainerPlan]]]) -> dict[str, _Reading]:
        """Read the groups and the interfaces of tasks, by id. Blocks."""
        return {task.id: self._read(task, containers) for task, containers in wanted}

    def _read(self, task: TaskPlan, containers: list[ContainerPlan]) -> _Reading:
        at_s, groups, links = time.monotonic(), dict[str, GroupReading](), dict[str, LinkStats]()
        storage: StorageUse | None = None
        try:
            for container in containers:
                if reading := self._reader.read(container.cgroup):
                    groups[container.name] = reading
            if groups:
                links = read_links(task.netns, {eni.ifname for eni in task.enis})
                storage = self._measure(task.directory)
        except (OSError, ValueError) as error:  # it may be ending, or the kernel may lack a file
            log.debug("task %s: what it uses can't be read: %s", task.id, error)
        return _Reading(at_s, groups, links, storage)


def running_of(run: TaskRun) -> list[ContainerPlan]:
    """Return the containers of a task that run now."""
    facts = run.facts.containers
    return [
        container
        for container in run.plan.containers
        if container.name in facts and facts[container.name].status is ContainerStatus.RUNNING
    ]
