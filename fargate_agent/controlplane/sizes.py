"""Sizes of a Fargate task: how they may be written, and which there are.

Source: Amazon ECS developer guide, "Task CPU and memory".
"""

import re
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error

_GIB: Final = 1024

LARGEST_CPU_UNITS: Final = 32768
"""AWS has it in some regions only."""
PAIRS: Final[dict[int, frozenset[int]]] = {
    256: frozenset({512, 1024, 2048}),
    512: frozenset(range(1 * _GIB, 4 * _GIB + 1, _GIB)),
    1024: frozenset(range(2 * _GIB, 8 * _GIB + 1, _GIB)),
    2048: frozenset(range(4 * _GIB, 16 * _GIB + 1, _GIB)),
    4096: frozenset(range(8 * _GIB, 30 * _GIB + 1, _GIB)),
    8192: frozenset(range(16 * _GIB, 60 * _GIB + 1, 4 * _GIB)),
    16384: frozenset(range(32 * _GIB, 120 * _GIB + 1, 8 * _GIB)),
    LARGEST_CPU_UNITS: frozenset({61440, 122880, 249856}),
}
"""Memory in MiB that goes with so many CPU units."""

WINDOWS_CPU_UNITS: Final = frozenset({1024, 2048, 4096})
"""Source: Amazon ECS developer guide, "Task CPU and memory", operating systems."""

MIN_EPHEMERAL_STORAGE_GIB: Final = 21
MAX_EPHEMERAL_STORAGE_GIB: Final = 200
"""Source: ECS API, EphemeralStorage."""

_CPU: Final = re.compile(
    r"\s*(?:(?P<units>\d{1,7})|(?P<vcpus>\d{0,4}(\.\d{1,6})?)\s*vcpu)\s*", re.ASCII | re.I
)
_MEMORY: Final = re.compile(
    r"\s*(?:(?P<mib>\d{1,9})|(?P<gib>\d{0,6}(\.\d{1,6})?)\s*gb)\s*", re.ASCII | re.I
)
_SEE_GUIDE: Final = (
    "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."
)


def parse_cpu(text: str) -> int:
    """Return CPU units, given as `1024` or `1 vCPU`.

    Raises:
        ApiError: it is neither.
    """
    return _parse(_CPU, text, "cpu", "units", "vcpus")


def parse_memory(text: str) -> int:
    """Return MiB, given as `2048` or `2GB`.

    Raises:
        ApiError: it is neither.
    """
    return _parse(_MEMORY, text, "memory", "mib", "gib")


def is_pair(cpu_units: int, memory_mib: int, *, has_32_vcpus: bool = True) -> bool:
    """Whether Fargate has tasks of this size, in a region that may have the largest ones."""
    is_there = has_32_vcpus or cpu_units != LARGEST_CPU_UNITS
    return is_there and memory_mib in PAIRS.get(cpu_units, ())


def check_pair(cpu_units: int, memory_mib: int, *, has_32_vcpus: bool = True) -> None:
    """Return if Fargate has tasks of this size; see `is_pair`.

    Raises:
        ApiError: it has none.
    """
    if not is_pair(cpu_units, memory_mib, has_32_vcpus=has_32_vcpus):
        raise no_configuration(cpu_units, memory_mib)


def check_windows_pair(cpu_units: int, memory_mib: int) -> None:
    """Return if Fargate has Windows tasks of this size.

    Raises:
        ApiError: it has none.
    """
    check_pair(cpu_units, memory_mib)
    if cpu_units not in WINDOWS_CPU_UNITS:
        raise no_configuration(cpu_units, memory_mib)


def no_configuration(cpu_units: int, memory_mib: int) -> ApiError:
    """Return the error for a size that Fargate doesn't have, or not on the platform."""
    return client_error(
        f"No Fargate configuration exists for given values: {cpu_units} CPU, {memory_mib} "
        "memory. See the Amazon ECS documentation for the valid values."
    )


def check_ephemeral_storage(gib: int) -> None:
    """Return if a task can have so much.

    Raises:
        ApiError: it is too little or too much.
    """
    if gib < MIN_EPHEMERAL_STORAGE_GIB:
        raise client_error(f"EphemeralStorage size should be at least {MIN_EPHEMERAL_STORAGE_GIB}")
    if gib > MAX_EPHEMERAL_STORAGE_GIB:
        raise client_error(f"EphemeralStorage size should be at most {MAX_EPHEMERAL_STORAGE_GIB}")


def _parse(pattern: re.Pattern[str], text: str, what: str, small: str, large: str) -> int:
    match = pattern.fullmatch(text)
    if match is None or not (match[small] or match[large]):
        raise client_error(f"Invalid '{what}' setting for task. {_SEE_GUIDE}")
    return int(match[small]) if match[small] else round(float(match[large]) * 1024)
