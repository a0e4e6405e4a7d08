"""How answers of containerd become ours, without a containerd."""

from datetime import UTC, datetime

import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

import fargate_agent
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    DeadlineError,
    FailedPreconditionError,
    NotFoundError,
    UnavailableError,
    containerd_call,
)
from fargate_agent.containerd.metrics import V1_TYPE_URL, V2_TYPE_URL, metrics_from_wire
from fargate_agent.containerd.pb import cgroups_v1_pb2, cgroups_v2_pb2
from fargate_agent.containerd.types import (
    Descriptor,
    Mount,
    descriptor_from_wire,
    descriptor_to_wire,
    mounts_from_wire,
    mounts_to_wire,
    time_from_wire,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.ALREADY_EXISTS, AlreadyExistsError),
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPreconditionError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.UNKNOWN, ContainerdError),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_status_becomes_its_own_error_with_what_containerd_said(
    code: grpc.StatusCode, kind: type[ContainerdError]
) -> None:
    with (
        pytest.raises(ContainerdError, match=r"^get image web: it said why$") as raised,
        containerd_call("get image web"),
    ):
        raise _error(code, "it said why")

    assert type(raised.value) is kind


@pytest.mark.parametrize("source", ["gRPC", "asyncio"])
def test_an_answer_that_is_late_becomes_a_deadline_error(source: str) -> None:
    late = _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    with (
        pytest.raises(DeadlineError, match=r"^start web: no answer in time$"),
        containerd_call("start web"),
    ):
        raise late if source == "gRPC" else TimeoutError


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def test_a_descriptor_comes_back_from_the_wire_as_it_was() -> None:
    descriptor = Descriptor(media_type="a/b", digest="sha256:0", size=1, annotations={"k": "v"})

    assert descriptor_from_wire(descriptor_to_wire(descriptor)) == descriptor


def test_mounts_come_back_from_the_wire_as_they_were() -> None:
    mounts = (
        Mount(type="overlay", source="overlay", options=("lowerdir=/a:/b", "workdir=/c")),
        Mount(type="bind", source="/a", target="/b"),
    )

    assert mounts_from_wire(mounts_to_wire(mounts)) == mounts


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(0, None, id="never set"),
        pytest.param(-62_135_596_800, None, id="zero of Go"),
        pytest.param(1_767_225_600, datetime(2026, 1, 1, tzinfo=UTC), id="a moment"),
    ],
)
def test_a_time_is_aware_or_none(seconds: int, expected: datetime | None) -> None:
    assert time_from_wire(Timestamp(seconds=seconds)) == expected


def test_metrics_of_cgroup_v1_are_read() -> None:
    message = cgroups_v1_pb2.Metrics(
        pids=cgroups_v1_pb2.PidsStat(current=3, limit=0),
        cpu=cgroups_v1_pb2.CPUStat(
            usage=cgroups_v1_pb2.CPUUsage(total=30, user=20, kernel=10, per_cpu=[16, 14]),
            throttling=cgroups_v1_pb2.Throttle(periods=5, throttled_periods=4, throttled_time=3),
        ),
        memory=cgroups_v1_pb2.MemoryStat(
            cache=7,
            total_pg_fault=8,
            usage=cgroups_v1_pb2.MemoryEntry(limit=100, usage=50, max=60, failcnt=2),
        ),
        memory_oom_control=cgroups_v1_pb2.MemoryOomControl(oom_kill=1),
        blkio=cgroups_v1_pb2.BlkIOStat(
            io_service_bytes_recursive=[
                cgroups_v1_pb2.BlkIOEntry(op="Read", major=8, minor=1, value=4096),
                cgroups_v1_pb2.BlkIOEntry(op="Total", major=8, minor=1, value=4096),
            ]
        ),
    )

    used = metrics_from_wire(Any(type_url=V1_TYPE_URL, value=message.SerializeToString()))

    assert (used.cpu_total_ns, used.cpu_user_ns, used.cpu_kernel_ns) == (30, 20, 10)
    assert used.cpu_per_core_ns == (16, 14)
    assert (used.throttle_periods, used.throttled_periods, used.throttled_ns) == (5, 4, 3)
    assert (used.memory_bytes, used.memory_max_bytes, used.memory_limit_bytes) == (50, 60, 100)
    assert (used.memory_failures, used.oom_kills, used.pids) == (2, 1, 3)
    assert (used.memory_stats["cache"], used.memory_stats["total_pgfault"]) == (7, 8)
    assert used.memory_stats["rss"] == 0
    assert used.block_bytes == ((8, 1, "read", 4096),)


def test_metrics_of_cgroup_v2_are_read_in_the_same_units() -> None:
    message = cgroups_v2_pb2.Metrics(
        pids=cgroups_v2_pb2.PidsStat(current=3, limit=9),
        cpu=cgroups_v2_pb2.CPUStat(usage_usec=30, user_usec=20, system_usec=10, throttled_usec=3),
        memory=cgroups_v2_pb2.MemoryStat(anon=7, usage=50, usage_limit=100),
        memory_events=cgroups_v2_pb2.MemoryEvents(max=5, oom=2, oom_kill=1),
        io=cgroups_v2_pb2.IOStat(
            usage=[cgroups_v2_pb2.IOEntry(major=8, minor=1, rbytes=1, wbytes=2, rios=3, wios=4)]
        ),
    )

    used = metrics_from_wire(Any(type_url=V2_TYPE_URL, value=message.SerializeToString()))

    assert (used.cpu_total_ns, used.cpu_user_ns, used.cpu_kernel_ns) == (30_000, 20_000, 10_000)
    assert (used.cpu_per_core_ns, used.throttled_ns) == ((), 3_000)
    assert (used.memory_bytes, used.memory_limit_bytes, used.memory_failures) == (50, 100, 2)
    assert (used.oom_kills, used.pids, used.pids_limit) == (1, 3, 9)
    assert used.memory_stats["anon"] == 7
    assert "usage" not in used.memory_stats
    assert used.block_bytes == ((8, 1, "read", 1), (8, 1, "write", 2))
    assert used.block_operations == ((8, 1, "read", 3), (8, 1, "write", 4))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param(
            V1_TYPE_URL,
            cgroups_v1_pb2.Metrics(
                memory=cgroups_v1_pb2.MemoryStat(
                    usage=cgroups_v1_pb2.MemoryEntry(limit=9223372036854771712)
                )
            ),
            id="v1",
        ),
        pytest.param(
            V2_TYPE_URL,
            cgroups_v2_pb2.Metrics(
                pids=cgroups_v2_pb2.PidsStat(limit=2**64 - 1),
                memory=cgroups_v2_pb2.MemoryStat(usage_limit=2**64 - 1),
            ),
            id="v2",
        ),
    ],
)
def test_no_limit_is_no_number(url: str, message: Message) -> None:
    used = metrics_from_wire(Any(type_url=url, value=message.SerializeToString()))

    assert (used.memory_limit_bytes, used.pids_limit) == (0, 0)


def test_metrics_of_a_kind_that_is_not_known_are_an_error() -> None:
    with pytest.raises(ContainerdError, match=r"unknown kind io\.containerd\.cgroups\.v3"):
        metrics_from_wire(Any(type_url="io.containerd.cgroups.v3.Metrics"))


async def test_a_blocking_call_of_the_agent_in_the_event_loop_is_noticed() -> None:
    blocking = compile("import time; time.sleep(0.001)", fargate_agent.__file__, "exec")

    with pytest.raises(Exception, match=r"Blocking call to time\.sleep"):
        exec(blocking)  # stands for a function of the agent: its file says so
