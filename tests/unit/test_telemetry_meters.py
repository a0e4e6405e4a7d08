"""From readings to buckets: counters over restarts and wraps, what is sampled and what isn't."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.drivers import StorageUse
from fargate_agent.network.netlink import LinkStats
from fargate_agent.plan import plan_task
from fargate_agent.task.runner import TaskRun
from fargate_agent.task.status import ContainerFacts, ContainerStatus
from fargate_agent.telemetry import outbox as outbox_module
from fargate_agent.telemetry.container_families import container_families
from fargate_agent.telemetry.groups import GroupReader, GroupReading, find_number, sum_io, sum_v1_io
from fargate_agent.telemetry.links import parse_links
from fargate_agent.telemetry.meters import ContainerMeter, Counter, NetworkMeter, Samples
from fargate_agent.telemetry.outbox import MAX_FRAMES, Outbox
from fargate_agent.telemetry.publisher import Periods, Publisher, render_task
from fargate_agent.telemetry.sampler import Sampler, TaskMeter
from fargate_agent.wire.messages import Frame, parse_frame, render_frame
from fargate_agent.wire.telemetry import (
    LONG_MAX,
    CounterSet,
    EphemeralStorageMetrics,
    MetricsMetadata,
    PublishMetricsRequest,
)
from tests.messages import container_json, site, task_message

MIB = 1024 * 1024
GIB = 1024 * MIB
SECOND_NS = 1_000_000_000
READING = GroupReading(
    group=1, cpu_ns=0, memory_bytes=6 * MIB, cache_bytes=2 * MIB, read_bytes=0, written_bytes=0
)
LINK = LinkStats(
    rx_bytes=1000, rx_packets=10, rx_errors=0, rx_dropped=0,
    tx_bytes=500, tx_packets=5, tx_errors=0, tx_dropped=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([5, 9], 9),
        ([5, 9, 2, 4], 13),
        ([2**64 - 3, 4], 2**64 + 4),
    ],
    ids=["it grows", "it began again", "it has wrapped at 64 bits"],
)
def test_counter_goes_on(values: list[int], total: int) -> None:
    counter = Counter()

    for value in values:
        counter.take(value)

    assert counter.total == total


def test_counter_goes_on_when_the_next_group_has_counted_more_already() -> None:
    counter = Counter()

    counter.take(5)
    counter.take(7, is_new=True)

    assert counter.total == 12


def test_samples_of_a_counter_beyond_63_bits_have_an_overflow() -> None:
    samples = Samples()
    for value in (LONG_MAX - 1, LONG_MAX + 7):
        samples.add(value)

    found = samples.drain_counter()

    assert (found.min, found.overflow_min) == (LONG_MAX - 1, None)
    assert (found.max, found.overflow_max) == (LONG_MAX, 7)
    assert (found.sum, found.overflow_sum) == (LONG_MAX, LONG_MAX)
    assert not samples


def test_first_reading_is_no_sample() -> None:
    meter = ContainerMeter()

    meter.take(replace(READING, cpu_ns=90 * SECOND_NS), 0.0, cores=2)

    assert meter.drain() is None


def test_cpu_is_a_share_of_all_processors_and_memory_is_without_cache() -> None:
    meter = ContainerMeter()
    for at_s, cpu_ns in ((0.0, 0), (5.0, 5 * SECOND_NS), (10.0, 6 * SECOND_NS)):
        meter.take(replace(READING, cpu_ns=cpu_ns, read_bytes=cpu_ns), at_s, cores=2)

    drained = meter.drain()

    assert drained is not None
    cpu, memory, storage = drained
    assert (cpu.min, cpu.max, cpu.sum, cpu.sample_count) == (10, 50, 60, 2)
    assert (memory.min, memory.max, memory.sample_count) == (4, 4, 2)
    assert storage.read_size_bytes.max == 6 * SECOND_NS
    assert meter.drain() is None


def test_cpu_counts_from_zero_in_a_restarted_container() -> None:
    meter = ContainerMeter()
    meter.take(replace(READING, cpu_ns=3 * SECOND_NS), 0.0, cores=1)

    meter.take(replace(READING, cpu_ns=4 * SECOND_NS, group=2), 10.0, cores=1)

    drained = meter.drain()
    assert drained is not None
    assert drained[0].max == 40
    assert meter.cpu_ns.total == 7 * SECOND_NS


def test_network_is_summed_over_interfaces_and_rates_follow() -> None:
    meter = NetworkMeter()
    meter.take({"eth1": LINK, "eth2": LINK}, 0.0)

    meter.take({"eth1": replace(LINK, rx_bytes=1100), "eth2": LINK}, 10.0)

    found = meter.drain()
    assert found is not None
    assert (found.rx_bytes.max, found.tx_packets.max) == (2100, 10)
    assert (found.rx_bytes_per_second.max, found.tx_bytes_per_second.max) == (10, 0)


def test_files_of_the_kernel_are_read() -> None:
    io = "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2 rios=1\n"
    v1_io = "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n"
    dev = (
        "Inter-|   Receive  | Transmit\n face |bytes packets\n"
        "    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n"
        "  eth1:100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n"
    )

    assert (sum_io(io, "rbytes="), sum_io(io, "wbytes=")) == (11, 22)
    assert (sum_v1_io(v1_io, "read"), sum_v1_io(v1_io, "write")) == (10, 20)
    assert find_number("a 1\ninactive_file 7\n", "inactive_file") == 7
    assert find_number("a 1\n", "inactive_file") == 0
    assert parse_links(dev, {"eth1"}) == {
        "eth1": LinkStats(
            rx_bytes=100, rx_packets=2, rx_errors=3, rx_dropped=4,
            tx_bytes=500, tx_packets=6, tx_errors=7, tx_dropped=8,
        )
    }  # fmt: skip


def frame(message_id: str) -> PublishMetricsRequest:
    return PublishMetricsRequest(
        metadata=MetricsMetadata(
            cluster="default", container_instance="i", message_id=message_id, fin=True
        ),
        timestamp=0,
    )


@pytest.fixture(autouse=True)
def room_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "ROOM_TIMEOUT_S", 0.05)


async def test_outbox_drops_the_oldest_frames_and_counts_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outbox = Outbox()
    for number in range(MAX_FRAMES + 2):
        await outbox.put(frame(str(number)))

    first = await outbox.first()

    assert first == frame("2")
    assert (len(outbox), outbox.dropped) == (MAX_FRAMES, 2)
    assert caplog.text.count("were dropped") == 1
    outbox.note_sent(first)
    assert await outbox.first() == frame("3")


async def test_frame_that_was_dropped_while_it_was_sent_takes_no_other_along() -> None:
    outbox = Outbox()
    await outbox.put(frame("0"))
    sending = await outbox.first()
    for number in range(1, MAX_FRAMES + 1):
        await outbox.put(frame(str(number)))

    outbox.note_sent(sending)

    assert await outbox.first() == frame("1")


async def test_more_frames_than_there_is_room_wait_while_others_are_sent() -> None:
    outbox, sent = Outbox(), list[Frame]()

    async def send() -> None:
        while True:
            one = await outbox.first()
            await asyncio.sleep(0)
            sent.append(one)
            outbox.note_sent(one)

    sending = asyncio.create_task(send())
    frames = [frame(str(number)) for number in range(5 * MAX_FRAMES)]
    for one in frames:
        await outbox.put(one)
    async with asyncio.timeout(5):
        while len(outbox):
            await asyncio.sleep(0)
    sending.cancel()

    assert sent == frames
    assert (outbox.sent, outbox.dropped) == (len(frames), 0)


def metered(run: TaskRun, names: Iterable[str]) -> TaskMeter:
    """Return a task of which two readings were taken."""
    meter = TaskMeter(run)
    for at_s in (0.0, 5.0):
        for name in names:
            one = meter.containers.setdefault(name, ContainerMeter())
            one.take(replace(READING, cpu_ns=int(at_s * SECOND_NS)), at_s, cores=1)
        meter.network.take({"eth1": LINK}, at_s)
    return meter


class BrokenOnce(Sampler):
    """Fails when it is asked first."""

    def __init__(self) -> None:
        self.tasks = {}
        self.asked = 0

    async def sample(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("not even this")

    def forget_ended(self) -> None:
        pass


async def test_fault_of_telemetry_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox()
    publisher = Publisher(BrokenOnce(), outbox, lambda: "", Periods(sample_s=0.01, bucket_s=0.02))
    serving = asyncio.create_task(publisher.serve())
    async with asyncio.timeout(30):
        await outbox.first()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving

    assert "not even this" in caplog.text


async def test_network_stands_in_one_container_and_restarts_where_there_is_a_policy(
    tmp_path: object,
) -> None:
    message = task_message(
        container_json("web", restartPolicy={"enabled": True}), container_json("side")
    )
    plan = plan_task(message, site(tmp_path), "key")  # type: ignore[arg-type]
    run = TaskRun(plan=plan, stop=asyncio.get_running_loop().create_future())
    for container in plan.containers:
        run.facts.containers[container.name] = ContainerFacts(
            name=container.name,
            runtime_id=container.id,
            status=ContainerStatus.RUNNING,
            restart_count=3,
        )

    metric = render_task(metered(run, ("web", "side")))

    assert metric is not None
    assert metric.task_arn == plan.arn
    assert [one.container_name for one in metric.container_metrics] == [
        container.name for container in plan.containers
    ]
    networks = [one.network_stats_set for one in metric.container_metrics]
    assert networks[0] is not None
    assert networks[1] is None
    restarts = {one.container_name: one.restart_stats_set for one in metric.container_metrics}
    assert restarts["side"] is None
    assert restarts["web"] is not None
    assert restarts["web"].restart_count == 3
    sent = PublishMetricsRequest(metadata=frame("1").metadata, timestamp=0, task_metrics=(metric,))
    assert parse_frame(render_frame(sent)) == sent


def running_task(root: Path) -> TaskRun:
    plan = plan_task(task_message(container_json("web")), site(root), "key")
    run = TaskRun(plan=plan, stop=asyncio.get_running_loop().create_future())
    for one in plan.containers:
        run.facts.containers[one.name] = ContainerFacts(
            name=one.name, runtime_id=one.id, status=ContainerStatus.RUNNING
        )
    return run


class EvenGroups(GroupReader):
    """Any group has used as much."""

    def __init__(self) -> None:
        pass

    def read(self, path: str) -> GroupReading | None:
        del path
        return READING


async def test_use_of_the_ephemeral_volume_is_told(tmp_path: Path) -> None:
    run, used = running_task(tmp_path), [3 * MIB, 5 * MIB]
    run.plan = replace(run.plan, netns=Path("/proc/self/ns/net"))

    def measure(directory: Path) -> StorageUse:
        assert directory == run.plan.directory
        return StorageUse(used_bytes=used.pop(0), size_bytes=GIB)

    sampler = Sampler(EvenGroups(), lambda: [run], 1, 0, measure=measure)
    await sampler.sample()
    await sampler.sample()

    families = {one.name: one for one in container_families(sampler.tasks.values(), 0, 0)}
    metric = render_task(sampler.tasks[run.plan.id])
    assert metric is not None
    assert metric.ephemeral_storage_metrics == EphemeralStorageMetrics(
        bytes_utilized=CounterSet(min=3 * MIB, max=5 * MIB, sum=8 * MIB, sample_count=2)
    )
    for what, value in (("reserved", 20 * GIB), ("utilized", 5 * MIB)):
        family = families[f"fargate_task_ephemeral_storage_{what}_bytes"]
        assert [(labels[0], one) for labels, one in family.values.items()] == [
            (run.plan.cgroup, value)
        ]


@pytest.mark.parametrize("fault", [None, OSError(5, "it is shut down")], ids=["unbounded", "fault"])
async def test_task_without_a_volume_has_no_figures_of_one(
    tmp_path: Path, fault: OSError | None
) -> None:
    run = running_task(tmp_path)
    run.plan = replace(run.plan, netns=Path("/proc/self/ns/net"))

    def measure(directory: Path) -> None:
        del directory
        if fault is not None:
            raise fault

    sampler = Sampler(EvenGroups(), lambda: [run], 1, 0, measure=measure)
    await sampler.sample()
    await sampler.sample()

    metric = render_task(sampler.tasks[run.plan.id])
    families = {one.name: one for one in container_families(sampler.tasks.values(), 0, 0)}
    assert metric is not None
    assert metric.ephemeral_storage_metrics is None
    assert not families["fargate_task_ephemeral_storage_utilized_bytes"].values
    assert families["container_cpu_usage_seconds"].values
