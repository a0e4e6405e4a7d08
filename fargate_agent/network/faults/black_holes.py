"""Ports that swallow packets: for each a chain with a hook of its own, in one table.

What such a chain accepts is looked at by all other chains still, as those of security groups.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from typing import Final

from fargate_agent.drivers.faults import BlackHole, Network, Traffic, Transport
from fargate_agent.network.nft.expressions import (
    TCP,
    UDP,
    accept,
    destination_in,
    drop,
    port_in,
    protocol_is,
    source_in,
)
from fargate_agent.network.nft.objects import INPUT, OUTPUT, Table
from fargate_agent.plan import TMDS_ADDRESS

METADATA: Final = IPv4Network((TMDS_ADDRESS, 32))
METADATA_PORT: Final = 80
_BEFORE_FILTERS: Final = -10
"""Behind the tracking of connections, before filters. Source: Linux,
include/uapi/linux/netfilter_ipv4.h, `NF_IP_PRI_…`."""
_NUMBERS: Final = {Transport.TCP: TCP, Transport.UDP: UDP}
_HOOKS: Final = {Traffic.INGRESS: INPUT, Traffic.EGRESS: OUTPUT}


def render_hole(table: Table, hole: BlackHole, exempt: Iterable[Network]) -> Iterator[bytes]:
    """Yield what makes a black hole; `table` is there, and has none of its name.

    ECS compares `exempt` with destinations only, whichever way packets go, and documents it as
    what is protected. So what comes in is compared by its source, too.
    """
    matched = protocol_is(_NUMBERS[hole.transport]) + port_in(hole.port, hole.port)
    yield table.base_chain(hole.name, _HOOKS[hole.traffic], _BEFORE_FILTERS)
    for network in dict.fromkeys((*_never(hole), *exempt)):
        yield table.rule(hole.name, destination_in(network), matched, accept())
        if hole.traffic is Traffic.INGRESS:
            yield table.rule(hole.name, source_in(network), matched, accept())
    yield table.rule(hole.name, matched, drop())


def _never(hole: BlackHole) -> tuple[Network, ...]:
    """Return what is always exempt: how would the task end the fault?"""
    goes_there = hole.traffic is Traffic.EGRESS and hole.port == METADATA_PORT
    return (METADATA,) if goes_there else ()
