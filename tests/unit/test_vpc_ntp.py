"""The time as tasks are told it: packets without sockets."""

import secrets
import struct

import pytest

from fargate_agent.kernel_clock import Clock
from fargate_agent.vpc.ntp import answer_ntp

CLIENT = 3
REQUEST = bytes([4 << 3 | CLIENT, 0, 6]) + bytes(37) + b"sent now"
UNIX_TO_NTP_S = 2_208_988_800


def test_clock_that_is_right_is_told_with_its_error() -> None:
    clock = Clock(is_synchronized=True, max_error_us=250_000)

    reply = answer_ntp(REQUEST, clock, 1_500_000_000)

    assert reply is not None
    head, stratum, poll, _, delay, dispersion = struct.unpack("!BBbbII", reply[:12])
    assert (head >> 6, head >> 3 & 7, head & 7) == (0, 4, 4)
    assert (stratum, poll, delay, dispersion) == (3, 6, 0, 1 << 14)
    assert reply[24:32] == b"sent now"
    assert struct.unpack("!II", reply[32:40]) == (UNIX_TO_NTP_S + 1, 1 << 31)


@pytest.mark.parametrize("clock", [None, Clock(is_synchronized=False, max_error_us=16_000_000)])
def test_clock_that_nothing_keeps_right_is_not_to_be_believed(clock: Clock | None) -> None:
    """Stratum 16 is 0 on the wire. Source: RFC 5905, figure 11."""
    reply = answer_ntp(REQUEST, clock, 1_500_000_000)

    assert reply is not None
    assert (reply[0] >> 6, reply[1], reply[12:16]) == (3, 0, b"INIT")


@pytest.mark.parametrize("version", range(8))
@pytest.mark.parametrize("mode", range(8))
def test_only_clients_are_answered_and_in_their_version(version: int, mode: int) -> None:
    reply = answer_ntp(bytes([version << 3 | mode]) + REQUEST[1:], None, 0)

    assert (reply is not None) == (mode == CLIENT and version in range(1, 5))
    assert reply is None or reply[0] >> 3 & 7 == version


def test_whatever_comes_is_answered_or_passed_over() -> None:
    for size in range(200):
        answer_ntp(secrets.token_bytes(size), None, 0)
