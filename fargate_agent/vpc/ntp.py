"""The time, as a server of NTP tells it. Source: RFC 5905, 7.3."""

import struct
import time
from typing import Final

from fargate_agent.kernel_clock import Clock

PACKET_BYTES: Final = 48
_PACKET: Final = struct.Struct("!BBbb II4s QQQQ")
_CLIENT, _SERVER = 3, 4
_VERSIONS: Final = range(1, 5)
_UNIX_TO_NTP_S: Final = 2_208_988_800
"""From 1900 to 1970."""
STRATUM: Final = 3
"""That of Amazon's time service. Source: Amazon EC2 User Guide, "Amazon Time Sync Service"."""
_PRECISION: Final = -20
"""A microsecond, as a power of two."""
_UNSYNCHRONIZED: Final = 3
"""Leap indicator. Source: RFC 5905, figure 9."""
_LOCAL: Final = b"LOCL"
_NOT_YET: Final = b"INIT"
"""Source: RFC 5905, 7.4."""
_MAX_SHORT: Final = 0xFFFFFFFF
_US: Final = 1_000_000


def answer_ntp(request: bytes, clock: Clock | None, received_ns: int) -> bytes | None:
    """Return the reply to a client; None if it isn't one that asks for the time.

    `received_ns` is when the request came, in nanoseconds since 1970. A clock of which nothing is
    known counts as one that isn't right.
    """
    if len(request) < PACKET_BYTES:
        return None
    version, mode = request[0] >> 3 & 7, request[0] & 7
    if mode != _CLIENT or version not in _VERSIONS:
        return None
    received = _to_ntp(received_ns)
    leap, stratum, name, error_us = _UNSYNCHRONIZED, 0, _NOT_YET, 0
    if clock is not None and clock.is_synchronized:
        leap, stratum, name, error_us = 0, STRATUM, _LOCAL, clock.max_error_us
    return _PACKET.pack(
        leap << 6 | version << 3 | _SERVER,
        stratum,
        request[2] - 256 if request[2] > 127 else request[2],
        _PRECISION,
        0,
        min((error_us << 16) // _US, _MAX_SHORT),
        name,
        received,
        int.from_bytes(request[40:48]),
        received,
        _to_ntp(time.time_ns()),
    )


def _to_ntp(unix_ns: int) -> int:
    """Return seconds since 1900 and their fraction, 32 bits each."""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    return (seconds + _UNIX_TO_NTP_S & 0xFFFFFFFF) << 32 | (ns << 32) // 1_000_000_000
