"""Which packets are impaired: rules that mark them for a class of a queue.

A queue takes the class from a packet's priority where that names the queue. So one rule for both
versions of IP does what tc needs filters of several kinds for. Source: Linux,
net/sched/sch_prio.c, `prio_classify`.
"""

import struct
from collections.abc import Iterator
from typing import Final

from fargate_agent.drivers.faults import Impairment
from fargate_agent.network.nft.attributes import number, value
from fargate_agent.network.nft.expressions import (
    TCP,
    UDP,
    accept,
    destination_in,
    expression,
    payload,
    protocol_is,
    to_interface,
)
from fargate_agent.network.nft.objects import POSTROUTING, Table

CHAIN: Final = "impaired"
_LAST: Final = 300
"""Behind what translates addresses. Source: Linux, include/uapi/linux/netfilter_ipv4.h."""

_FIRST_REGISTER: Final = 8
"""Of those of 4 bytes: it is the beginning of register 1. Source: Linux,
include/uapi/linux/netfilter/nf_tables.h, `NFT_REG32_00`."""
_REGISTER: Final = 1
_LESS: Final = 2
_META_PRIORITY: Final = 2
_NETWORK, _TRANSPORT = 1, 2
_ADDRESSES: Final = {4: (12, 8), 6: (8, 32)}
"""Where both addresses stand in the header, and how long they are together."""
_PORTS_BYTES: Final = 4
_BUCKETS: Final = 100
"""Less than 256, so that a comparison of bytes is one of numbers on any machine."""
_SEED: Final = 0xFA017
"""The same for all rules, so that destinations that overlap agree about a flow. 0 would have the
kernel choose."""


def render_flows(
    table: Table, ifname: str, impairment: Impairment, priority: int
) -> Iterator[bytes]:
    """Yield what gives packets a priority that leave through an interface and are impaired."""
    yield table.base_chain(CHAIN, POSTROUTING, _LAST)
    leaves = to_interface(ifname)
    for network in impairment.exempt:
        yield table.rule(CHAIN, leaves, destination_in(network), accept())
    for network in impairment.destinations:
        where = leaves + destination_in(network)
        if impairment.flows_percent >= _BUCKETS:
            yield table.rule(CHAIN, where, _set_priority(priority))
            continue
        for protocol in (TCP, UDP):
            chosen = _choose(network.version, impairment.flows_percent, with_ports=True)
            mark = chosen + _set_priority(priority)
            yield table.rule(CHAIN, where, protocol_is(protocol), mark)
            yield table.rule(CHAIN, where, protocol_is(protocol), accept())
        chosen = _choose(network.version, impairment.flows_percent, with_ports=False)
        yield table.rule(CHAIN, where, chosen, _set_priority(priority))


def _choose(version: int, percent: int, *, with_ports: bool) -> bytes:
    """Go on for so many flows of 100: those whose hash says so."""
    offset, size = _ADDRESSES[version]
    load = b""
    for position in range(0, size, 16):
        load += payload(
            _NETWORK, offset + position, min(16, size - position), _FIRST_REGISTER + position // 4
        )
    if with_ports:
        load += payload(_TRANSPORT, 0, _PORTS_BYTES, _FIRST_REGISTER + size // 4)
        size += _PORTS_BYTES
    registers = number(1, _FIRST_REGISTER) + number(2, _REGISTER)
    what = number(3, size) + number(4, _BUCKETS) + number(5, _SEED)
    below = number(1, _REGISTER) + number(2, _LESS) + value(3, struct.pack("=I", percent))
    return load + expression("hash", registers + what) + expression("cmp", below)


def _set_priority(priority: int) -> bytes:
    data = number(1, _REGISTER) + value(2, struct.pack("=I", priority))
    return expression("immediate", data) + expression(
        "meta", number(2, _META_PRIORITY) + number(3, _REGISTER)
    )
