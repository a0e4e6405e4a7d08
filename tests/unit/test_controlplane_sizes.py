"""CPU and memory of a Fargate task."""

import pytest

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.sizes import (
    PAIRS,
    check_ephemeral_storage,
    check_pair,
    check_windows_pair,
    parse_cpu,
    parse_memory,
)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("256", 256),
        ("1 vCPU", 1024),
        (".25 vcpu", 256),
        ("0.5vCPU", 512),
        (" 2 VCPU ", 2048),
        ("32vCPU", 32768),
    ],
)
def test_cpu_is_units_or_vcpus(text: str, units: int) -> None:
    assert parse_cpu(text) == units


@pytest.mark.parametrize(
    ("text", "mib"), [("512", 512), ("2GB", 2048), ("2 GB", 2048), ("0.5 GB", 512), ("0.5gb", 512)]
)
def test_memory_is_mib_or_gb(text: str, mib: int) -> None:
    assert parse_memory(text) == mib


@pytest.mark.parametrize("text", ["", "vcpu", "x", "-256", "1e3", "²", "1 2", "２５６", "١ vCPU"])
def test_garbage_is_refused_with_the_words_of_aws(text: str) -> None:
    with pytest.raises(ApiError, match="Invalid 'cpu' setting for task"):
        parse_cpu(text)


@pytest.mark.parametrize("text", ["", "gb", "５１２", "２GB"])
def test_garbage_is_no_memory(text: str) -> None:
    with pytest.raises(ApiError, match="Invalid 'memory' setting for task"):
        parse_memory(text)


def test_there_are_seventy_seven_pairs() -> None:
    assert sum(len(memories) for memories in PAIRS.values()) == 77


@pytest.mark.parametrize(
    ("cpu", "memory"), [(1024, 9216), (2048, 17408), (8192, 17408), (300, 512)]
)
def test_pair_that_fargate_lacks_is_refused(cpu: int, memory: int) -> None:
    with pytest.raises(ApiError, match=f"given values: {cpu} CPU, {memory} memory"):
        check_pair(cpu, memory)


@pytest.mark.parametrize("cpu", [256, 512, 8192, 16384, 32768])
def test_windows_has_one_to_four_vcpus_only(cpu: int) -> None:
    with pytest.raises(ApiError, match="No Fargate configuration exists"):
        check_windows_pair(cpu, max(PAIRS[cpu]))


@pytest.mark.parametrize("cpu", [1024, 2048, 4096])
def test_windows_has_the_pairs_of_linux(cpu: int) -> None:
    for memory in PAIRS[cpu]:
        check_windows_pair(cpu, memory)


@pytest.mark.parametrize(
    ("gib", "text"),
    [(20, "should be at least 21"), (201, "should be at most 200")],
    ids=["little", "much"],
)
def test_storage_beyond_the_bounds_is_refused(gib: int, text: str) -> None:
    with pytest.raises(ApiError, match=f"EphemeralStorage size {text}"):
        check_ephemeral_storage(gib)
