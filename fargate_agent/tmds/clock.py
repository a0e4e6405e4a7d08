"""How wrong the clock of this machine may be, as the kernel knows it from whoever sets it."""

import ctypes
from datetime import UTC, datetime
from functools import cache
from typing import Final

from fargate_agent.wire.metadata import ClockDrift

STA_UNSYNC: Final = 0x40
"""Source: Linux, include/uapi/linux/timex.h."""


class _Timex(ctypes.Structure):
    """What the kernel tells of its clock; the fields that aren't read here have no names.

    Source: Linux, include/uapi/linux/timex.h, `struct __kernel_timex`.
    """

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def read_clock_drift() -> ClockDrift | None:
    """Ask the kernel; None if it doesn't tell."""
    timex = _Timex(modes=0)
    if _libc().adjtimex(ctypes.byref(timex)) < 0:
        return None
    return ClockDrift(
        clock_error_bound=timex.maxerror / 1000,
        reference_timestamp=datetime.now(UTC),
        clock_synchronization_status=(
            "NOT_SYNCHRONIZED" if timex.status & STA_UNSYNC else "SYNCHRONIZED"
        ),
    )


@cache
def _libc() -> ctypes.CDLL:
    """Open it once: each opening makes classes, which only the garbage collector takes back."""
    return ctypes.CDLL(None)
