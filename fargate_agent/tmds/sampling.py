"""What the containers of a task use, read once a second for all who want to know.

Docker's clients work with two samples. While somebody asks for those of a task, one loop takes
them: two readers see the same, and none changes what the other sees. The first reader waits for the
second sample. Nobody has asked for a minute: the loop ends, and an idle task costs nothing.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fargate_agent.drivers import ContainerUsage
from fargate_agent.errors import TaskError
from fargate_agent.network.netlink import LinkStats, NetlinkError
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.threads import in_thread

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
"""As Docker's stats have it. Source: moby, daemon/stats/collector.go."""
IDLE_AFTER_S: Final = 60.0
NS_PER_S: Final = 1_000_000_000
SYSTEM_CPU_FIELDS: Final = 7
"""In the first line of /proc/stat: user to softirq. Source: moby, daemon/stats_unix.go."""

ReadUsage = Callable[[tuple[ContainerPlan, ...]], Awaitable[Mapping[str, ContainerUsage]]]
"""By container id; those that don't run are missing."""
ReadLinkStats = Callable[[Path], Awaitable[Mapping[str, LinkStats]]]
"""Of a network namespace, by interface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a container used at a moment, and the machine with it."""

    usage: ContainerUsage
    system_cpu_ns: int
    links: Mapping[str, LinkStats]
    """The ENIs of the task, by name."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two samples of one run of a container, about a period apart."""

    earlier: Sample
    later: Sample


class Sampler:
    """Takes samples of containers."""

    def __init__(self, read_usage: ReadUsage, read_link_stats: ReadLinkStats) -> None:
        self._read_usage = read_usage
        self._read_link_stats = read_link_stats
        self._watches: dict[str, _Watch] = {}

    async def take(
        self, task: TaskPlan, containers: tuple[ContainerPlan, ...]
    ) -> dict[str, Sample]:
        """Return a sample of those of the containers that run, by container id, as of now.

        Raises:
            TaskError: the runtime doesn't tell.
            NetlinkError: the kernel doesn't tell.
        """
        usages = await self._read_usage(containers)
        links = await self._read_link_stats(task.netns) if usages else {}
        of_enis = {eni.ifname: links[eni.ifname] for eni in task.enis if eni.ifname in links}
        system_cpu_ns = await in_thread(read_system_cpu_ns)
        return {
            id_: Sample(usage=usage, system_cpu_ns=system_cpu_ns, links=of_enis)
            for id_, usage in usages.items()
        }

    async def read(self, task: TaskPlan, containers: tuple[ContainerPlan, ...]) -> dict[str, Pair]:
        """Return the last two samples of those of the containers that run, by container id.

        Waits for the second sample of a container; has no deadline of its own.

        Raises:
            TaskError: the runtime doesn't tell.
            NetlinkError: the kernel doesn't tell.
        """
        watch = self._watches.get(task.id)
        if watch is None:
            watch = self._watches[task.id] = _Watch(task)
            watch.loop = asyncio.create_task(self._sample(watch), name=f"samples of {task.id}")
        watch.asked_at_s = asyncio.get_running_loop().time()
        wanted = {container.id for container in containers}
        while True:
            if watch.taken and watch.error is None and not watch.alone & wanted:
                return {id_: pair for id_, pair in watch.pairs.items() if id_ in wanted}
            if watch.error is not None:
                raise watch.error
            await watch.next.wait()

    async def forget(self, task: TaskPlan) -> None:
        """Take no more samples of a task."""
        watch = self._watches.pop(task.id, None)
        if watch is not None and watch.loop is not None:
            watch.loop.cancel()
            await asyncio.wait([watch.loop])

    @property
    def watched(self) -> Iterable[str]:
        """The ids of the tasks that samples are taken of."""
        return self._watches.keys()

    async def _sample(self, watch: "_Watch") -> None:
        """Take samples, until nobody has asked for a while."""
        clock = asyncio.get_running_loop().time
        due_s = clock()
        try:
            while clock() - watch.asked_at_s < IDLE_AFTER_S:
                try:
                    watch.put(await self.take(watch.task, watch.task.containers))
                except (TaskError, NetlinkError) as error:
                    watch.fail(error)
                due_s = max(due_s + PERIOD_S, clock())
                await asyncio.sleep(due_s - clock())
        except Exception as error:
            log.exception("the samples of task %s end", watch.task.id)
            watch.fail(error)
        finally:
            if self._watches.get(watch.task.id) is watch:
                del self._watches[watch.task.id]


@dataclass(slots=True)
class _Watch:
    """The samples of one task that somebody reads."""

    task: TaskPlan
    loop: "asyncio.Task[None] | None" = None
    asked_at_s: float = 0.0
    taken: bool = False
    """Whether there was a sample at all."""
    last: dict[str, Sample] = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)
    error: Exception | None = None
    next: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, when the next sample was taken, or couldn't be."""

    @property
    def alone(self) -> set[str]:
        """The containers that run and have one sample only."""
        return self.last.keys() - self.pairs.keys()

    def put(self, samples: dict[str, Sample]) -> None:
        self.pairs = {
            id_: Pair(before, sample)
            for id_, sample in samples.items()
            if (before := self.last.get(id_)) is not None and _is_same_run(before, sample)
        }
        self.last, self.error, self.taken = samples, None, True
        self._tell()

    def fail(self, error: Exception) -> None:
        self.error = error
        self._tell()

    def _tell(self) -> None:
        told, self.next = self.next, asyncio.Event()
        told.set()


def _is_same_run(before: Sample, after: Sample) -> bool:
    """Whether the container wasn't restarted meanwhile: a new run counts from 0."""
    return before.usage.cpu_total_ns <= after.usage.cpu_total_ns


def read_system_cpu_ns() -> int:
    """Return the time that all CPUs together have spent since boot, idle or not. Blocks briefly."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        fields = file.readline().split()[1 : 1 + SYSTEM_CPU_FIELDS]
    return sum(map(int, fields)) * (NS_PER_S // os.sysconf("SC_CLK_TCK"))
