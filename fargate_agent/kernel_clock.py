"""What the kernel knows of its clock from whatever keeps that right, such as chrony.

Source: adjtimex(2); Linux, include/uapi/linux/timex.h.
"""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Final

STA_UNSYNC: Final = 0x40


@dataclass(frozen=True, slots=True)
class Clock:
    """How right the clock is."""

    is_synchronized: bool
    max_error_us: int


class _Timex(ctypes.Structure):
    """`struct __kernel_timex`; the fields that aren't read here have no names."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def read_clock() -> Clock | None:
    """Ask the kernel, which takes microseconds; None if it doesn't tell."""
    timex = _Timex(modes=0)
    if _libc().adjtimex(ctypes.byref(timex)) < 0:
        return None
    return Clock(not timex.status & STA_UNSYNC, timex.maxerror)


@cache
def _libc() -> ctypes.CDLL:
    """Open it once: each opening makes classes, which only the garbage collector takes back."""
    return ctypes.CDLL(None)
