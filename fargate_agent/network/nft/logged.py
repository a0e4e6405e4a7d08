"""Rules that pass packets on to a group of the kernel's log, and only so many in a second.

Source of the numbers: Linux, include/uapi/linux/netfilter/nf_tables.h, `NFTA_LOG_…`,
`NFTA_LIMIT_…`, `NFTA_DYNSET_…`.
"""

import errno
import struct
from collections.abc import Iterator
from typing import Final

from fargate_agent.network.blocking import render_attribute
from fargate_agent.network.nft.attributes import nested, number, text
from fargate_agent.network.nft.expressions import (
    drop,
    expression,
    load_destination,
    load_source,
    version_is,
)
from fargate_agent.network.nft.objects import EVAL, Table, addresses

REFUSED_OUT, REFUSED_IN = "out", "in"
"""How the prefix of a packet begins that an ENI wasn't let send, or that wasn't let to it."""
LOG: Final = "log"
SKIPPED: Final = "skipped"
"""How it ends for a packet that stands for others, which weren't passed on."""
LOGGED_PER_S: Final = 200
"""Packets of one address that are passed on in a second; one more stands for those beyond."""
BURST: Final = 1_000
"""Packets that are passed on at once after a pause."""
REMEMBERED_S: Final = 60
"""For how long the pace of an address is remembered."""

NO_LOG: Final = "the kernel can't tell of packets that its packet filter refuses (nft_log)"
NO_LOG_EFFECT: Final = "flow logs have no REJECT records"
NO_LOG_CODES: Final = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL})
"""How a kernel answers that lacks what these rules are made of."""

_TIMEOUT: Final = 0x10
"""Flag of sets whose elements go by themselves."""
_UPDATE: Final = 1
_KEY_REGISTER: Final = 1
_VERSIONS: Final = (4, 6)


def render_logged_drop(table: Table, chain: str, way: str, group: int | None) -> Iterator[bytes]:
    """Yield what drops everything in a chain, and tells a group of it; None: nobody."""
    if group is not None:
        load = load_source if way == REFUSED_OUT else load_destination
        paces = ((way, LOGGED_PER_S, BURST), (f"{way} {SKIPPED}", 1, 1))
        for position, (prefix, rate, burst) in enumerate(paces):
            for version in _VERSIONS:
                paced = f"pace{position}_{way}{version}"
                yield table.set(paced, addresses(version), EVAL | _TIMEOUT)
                pace = _no_more_than(rate, burst, paced)
                told = (_log(group, prefix), drop())
                yield table.rule(chain, version_is(version), load(version) + pace, *told)
    yield table.rule(chain, drop())


def _log(group: int, prefix: str) -> bytes:
    """Pass a packet on to who listens to a group."""
    return expression(LOG, render_attribute(1, struct.pack("!H", group)) + text(2, prefix))


def _no_more_than(per_s: int, burst: int, paces: str) -> bytes:
    """Go on if the register's value hasn't come more often; the set keeps how often it does."""
    rate = _wide(1, per_s) + _wide(2, 1) + number(3, burst) + number(4, 0)
    limit = nested(7, text(1, "limit") + nested(2, rate))
    return expression(
        "dynset",
        text(1, paces)
        + number(3, _UPDATE)
        + number(4, _KEY_REGISTER)
        + _wide(6, REMEMBERED_S * 1000)
        + limit,
    )


def _wide(kind: int, value: int) -> bytes:
    return render_attribute(kind, struct.pack("!Q", value))
