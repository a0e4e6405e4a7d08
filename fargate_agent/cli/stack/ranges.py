"""Which range of addresses the default VPC gets: one that this host doesn't know yet."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from fargate_agent.cli.failure import CliError

DEFAULT_RANGE: Final = IPv4Network("10.0.0.0/16")
RANGE_PREFIX: Final = 16
_POOLS: Final = (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"))
"""Private ranges. Source: RFC 1918."""
_ROUTE_REJECTS: Final = 0x0200
"""Source: Linux, include/uapi/linux/route.h, `RTF_REJECT`."""


@dataclass(frozen=True, slots=True)
class Route:
    """Addresses that this host knows, and the device that leads there."""

    network: IPv4Network
    device: str
    is_bridge: bool = False


def read_routes() -> list[Route]:
    """Read the routes and the addresses of this network namespace."""
    bridges = {path.parent.name for path in Path("/sys/class/net").glob("*/bridge")}
    return [
        *parse_routes(Path("/proc/net/route").read_text(), bridges),
        *parse_addresses(Path("/proc/net/fib_trie").read_text()),
    ]


def parse_routes(table: str, bridges: Iterable[str] = ()) -> Iterator[Route]:
    """Read `/proc/net/route`; the default route, and routes that lead nowhere, are left out."""
    for line in table.splitlines()[1:]:
        device, destination, _, flags, _, _, _, mask, *_ = line.split()
        network = IPv4Network((_parse_address(destination), str(_parse_address(mask))))
        if network.prefixlen and not int(flags, 16) & _ROUTE_REJECTS:
            yield Route(network, device, device in bridges)


def parse_addresses(trie: str) -> Iterator[Route]:
    """Read the host's own addresses from `/proc/net/fib_trie`."""
    for address in sorted(set(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", trie))):
        yield Route(IPv4Network(address), "an address of this host")


def choose_range(
    wanted: IPv4Network | None,
    remembered: IPv4Network | None,
    routes: Sequence[Route],
    take: Callable[[IPv4Network], bool],
) -> IPv4Network:
    """Choose the range of the default VPC and take it.

    The first that is free of: the one that was asked for, and no other; the remembered one, the
    default, the next ones. `take` claims a range unless another stack has it.

    Raises:
        CliError: what was asked for is in use, or everything is.
    """
    if wanted is not None:
        if met := _find_overlap(wanted, routes, ours=remembered):
            raise CliError(f"--vpc-cidr {wanted}: overlaps {met.network} ({met.device})")
        if not take(wanted):
            raise CliError(f"--vpc-cidr {wanted}: another stack on this machine has it")
        return wanted
    for network in _candidates(remembered):
        if not _find_overlap(network, routes, ours=remembered) and take(network):
            return network
    raise CliError("every private range overlaps a route of this host: name one by --vpc-cidr")


def _candidates(remembered: IPv4Network | None) -> Iterator[IPv4Network]:
    if remembered is not None:
        yield remembered
    for pool in _POOLS:
        yield from pool.subnets(new_prefix=RANGE_PREFIX)


def _find_overlap(
    network: IPv4Network, routes: Sequence[Route], ours: IPv4Network | None
) -> Route | None:
    """The first route in the way; bridges within the range that was ours are our tasks' own."""
    for route in routes:
        left_by_us = ours is not None and route.network.subnet_of(ours)
        if left_by_us and (route.is_bridge or route.network.prefixlen == 32):
            continue
        if network.overlaps(route.network):
            return route
    return None


def _parse_address(text: str) -> IPv4Address:
    """Eight hex digits in the byte order of the machine, which is little-endian."""
    return IPv4Address(int.from_bytes(bytes.fromhex(text), "little"))
