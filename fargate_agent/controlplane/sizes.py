"""CPU and memory of a Fargate task: how they may be written, and which pairs there are.

Source: Amazon ECS developer guide, "Task CPU and memory".
"""

import re
from typing import Final

from fargate_agent.controlplane.errors import client_error

_GIB: Final = 1024

PAIRS: Final[dict[int, frozenset[int]]] = {
    256: frozenset({512, 1024, 2048}),
    512: frozenset(range(1 * _GIB, 4 * _GIB + 1, _GIB)),
    1024: frozenset(range(2 * _GIB, 8 * _GIB + 1, _GIB)),
    2048: frozenset(range(4 * _GIB, 16 * _GIB + 1, _GIB)),
    4096: frozenset(range(8 * _GIB, 30 * _GIB + 1, _GIB)),
    8192: frozenset(range(16 * _GIB, 60 * _GIB + 1, 4 * _GIB)),
    16384: frozenset(range(32 * _GIB, 120 * _GIB + 1, 8 * _GIB)),
    32768: frozenset({61440, 122880, 249856}),
}
"""Memory in MiB that goes with so many CPU units."""

_CPU: Final = re.compile(
    r"\s*(?:(?P<units>\d{1,7})|(?P<vcpus>\d{0,4}(\.\d{1,6})?)\s*vcpu)\s*", re.I
)
_MEMORY: Final = re.compile(r"\s*(?:(?P<mib>\d{1,9})|(?P<gib>\d{0,6}(\.\d{1,6})?)\s*gb)\s*", re.I)
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


def check_pair(cpu_units: int, memory_mib: int) -> None:
    """Return if Fargate has tasks of this size.

    Raises:
        ApiError: it has none.
    """
    if memory_mib not in PAIRS.get(cpu_units, ()):
        raise client_error(
            f"No Fargate configuration exists for given values: {cpu_units} CPU, {memory_mib} "
            "memory. See the Amazon ECS documentation for the valid values."
        )


def _parse(pattern: re.Pattern[str], text: str, what: str, small: str, large: str) -> int:
    match = pattern.fullmatch(text)
    if match is None or not (match[small] or match[large]):
        raise client_error(f"Invalid '{what}' setting for task. {_SEE_GUIDE}")
    return int(match[small]) if match[small] else round(float(match[large]) * 1024)
