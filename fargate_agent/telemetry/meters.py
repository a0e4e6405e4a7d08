"""From readings to buckets: counters that go on over restarts, and what was sampled since.

Pure: who calls says when something was read. Source of the rules: amazon-ecs-agent,
agent/stats/{queue,container,utils_unix}.go.
"""

from dataclasses import dataclass, field, fields
from typing import Final

from fargate_agent.drivers import StorageUse
from fargate_agent.network.netlink import LinkStats
from fargate_agent.telemetry.groups import GroupReading
from fargate_agent.wire.telemetry import (
    LONG_MAX,
    CounterSet,
    EphemeralStorageMetrics,
    NetworkStatsSet,
    StatsSet,
    StorageStatsSet,
)

BYTES_PER_MIB: Final = 1024 * 1024
_NS_PER_S: Final = 1_000_000_000
_RANGE: Final = 2**64
"""Of a counter of the kernel."""


class Counter:
    """A counter of the kernel that goes on where the kernel begins at zero again."""

    __slots__ = ("_base", "_last")

    def __init__(self) -> None:
        self._base = 0
        self._last = 0

    @property
    def total(self) -> int:
        """All that was counted."""
        return self._base + self._last

    def take(self, value: int, *, is_new: bool = False) -> None:
        """Take the next value; `is_new`: the kernel counts for something new in the old's place."""
        if is_new or value < self._last:
            wrapped = not is_new and self._last > _RANGE // 2
            self._base += _RANGE if wrapped else self._last
        self._last = value


class Samples:
    """Least, largest, sum and number of what was sampled since the last `drain`."""

    __slots__ = ("_count", "_largest", "_least", "_sum")
    _least: float
    _largest: float
    _sum: float
    _count: int

    def __init__(self) -> None:
        self._clear()

    def add(self, value: float) -> None:
        """Add a sample."""
        self._least = value if not self._count else min(self._least, value)
        self._largest = max(self._largest, value)
        self._sum += value
        self._count += 1

    def drain(self) -> StatsSet:
        """Return what was sampled, and begin anew."""
        found = StatsSet(
            min=self._least, max=self._largest, sum=self._sum, sample_count=self._count
        )
        self._clear()
        return found

    def drain_counter(self) -> CounterSet:
        """Do that for a counter, whose numbers may be too large for 63 bits."""
        numbers = int(self._least), int(self._largest), int(self._sum)
        over = [max(0, min(number - LONG_MAX, LONG_MAX)) or None for number in numbers]
        least, largest, total = (min(number, LONG_MAX) for number in numbers)
        found = CounterSet(
            min=least,
            max=largest,
            sum=total,
            sample_count=self._count,
            overflow_min=over[0],
            overflow_max=over[1],
            overflow_sum=over[2],
        )
        self._clear()
        return found

    def __bool__(self) -> bool:
        return self._count > 0

    def _clear(self) -> None:
        self._least = 0
        self._largest = 0
        self._sum = 0
        self._count = 0


@dataclass(slots=True)
class ContainerMeter:
    """What one container has used: in this run, and in those before that the agent has seen."""

    cpu_ns: Counter = field(default_factory=Counter)
    read_bytes: Counter = field(default_factory=Counter)
    written_bytes: Counter = field(default_factory=Counter)
    reading: GroupReading | None = None
    """The last one."""
    read_at_s: float = 0.0
    """When that was, by the clock of the caller."""
    _cpu: Samples = field(default_factory=Samples)
    _memory: Samples = field(default_factory=Samples)
    _read: Samples = field(default_factory=Samples)
    _written: Samples = field(default_factory=Samples)

    @property
    def working_set_bytes(self) -> int:
        """The memory that can't be dropped."""
        if self.reading is None:
            return 0
        return max(0, self.reading.memory_bytes - self.reading.cache_bytes)

    def take(self, reading: GroupReading, at_s: float, cores: int) -> None:
        """Take a reading. The first one only says from where to count."""
        before, passed_s = self.reading, at_s - self.read_at_s
        is_new = before is not None and reading.group != before.group
        cpu_before_ns = self.cpu_ns.total
        self.cpu_ns.take(reading.cpu_ns, is_new=is_new)
        self.read_bytes.take(reading.read_bytes, is_new=is_new)
        self.written_bytes.take(reading.written_bytes, is_new=is_new)
        self.reading, self.read_at_s = reading, at_s
        if before is None or passed_s <= 0:
            return
        used_ns = self.cpu_ns.total - cpu_before_ns
        self._cpu.add(100 * used_ns / cores / (passed_s * _NS_PER_S))
        self._memory.add(self.working_set_bytes / BYTES_PER_MIB)
        self._read.add(self.read_bytes.total)
        self._written.add(self.written_bytes.total)

    def drain(self) -> tuple[StatsSet, StatsSet, StorageStatsSet] | None:
        """Return CPU, memory and storage of the bucket that ends; None if there is no sample."""
        if not self._cpu:
            return None
        storage = StorageStatsSet(
            read_size_bytes=self._read.drain_counter(),
            write_size_bytes=self._written.drain_counter(),
        )
        return self._cpu.drain(), self._memory.drain(), storage


COUNTED: Final = tuple(member.name for member in fields(LinkStats))
"""Of an interface: `rx_bytes` and the like."""


@dataclass(slots=True)
class LinkMeter:
    """What went through one interface."""

    counters: dict[str, Counter] = field(
        default_factory=lambda: {name: Counter() for name in COUNTED}
    )

    def take(self, stats: LinkStats) -> None:
        """Take what the kernel has counted."""
        for name, counter in self.counters.items():
            counter.take(getattr(stats, name))


@dataclass(slots=True)
class NetworkMeter:
    """What went through the interfaces of one task, all together."""

    links: dict[str, LinkMeter] = field(default_factory=dict)
    """By name."""
    _read_at_s: float | None = None
    _samples: dict[str, Samples] = field(
        default_factory=lambda: {name: Samples() for name in COUNTED}
    )
    _received: Samples = field(default_factory=Samples)
    _sent: Samples = field(default_factory=Samples)
    """Bytes in a second."""

    def take(self, found: dict[str, LinkStats], at_s: float) -> None:
        """Take what the kernel has counted. The first one only says from where to count."""
        received, sent = self._total("rx_bytes"), self._total("tx_bytes")
        for name, stats in found.items():
            self.links.setdefault(name, LinkMeter()).take(stats)
        before_s, self._read_at_s = self._read_at_s, at_s
        if before_s is None or at_s <= before_s:
            return
        for name, samples in self._samples.items():
            samples.add(self._total(name))
        self._received.add((self._total("rx_bytes") - received) / (at_s - before_s))
        self._sent.add((self._total("tx_bytes") - sent) / (at_s - before_s))

    def drain(self) -> NetworkStatsSet | None:
        """Return the bucket that ends; None if there is no sample."""
        if not self._received:
            return None
        return NetworkStatsSet(
            **{name: samples.drain_counter() for name, samples in self._samples.items()},
            rx_bytes_per_second=self._received.drain(),
            tx_bytes_per_second=self._sent.drain(),
        )

    def _total(self, name: str) -> int:
        return sum(link.counters[name].total for link in self.links.values())


@dataclass(slots=True)
class VolumeMeter:
    """How full the ephemeral volume of one task is."""

    use: StorageUse | None = None
    """As it was seen last; None: nothing bounds the task, or it couldn't be looked at."""
    _used: Samples = field(default_factory=Samples)

    def take(self, use: StorageUse | None) -> None:
        """Take what the file system says."""
        self.use = use
        if use is not None:
            self._used.add(use.used_bytes)

    def drain(self) -> EphemeralStorageMetrics | None:
        """Return the bucket that ends; None if there is no sample."""
        if not self._used:
            return None
        return EphemeralStorageMetrics(bytes_utilized=self._used.drain_counter())
