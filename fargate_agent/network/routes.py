"""What the host knows of an ENI: the gateway on its end, a route to it, no way to other addresses.

A route to an address is the claim on it: the kernel lets it be made once. It is also the list of
what an ENI may send, as the host asks it for the way back to each source. What of the VPC has no
such route is unreachable; see `fargate_agent.network.unreachable`.

All functions block, for microseconds.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_network
from typing import Final

from fargate_agent.network.answers import render_answers
from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    Answer,
    NetlinkError,
    Request,
    ask,
    ask_each,
    read_attributes,
    render_attribute,
    render_message,
    require_each,
)
from fargate_agent.network.netlink import NO_IPV6
from fargate_agent.network.pair import MTU, Pair
from fargate_agent.network.rtnetlink import (
    ADDRESS,
    ADDRESS_LOCAL,
    GET_ROUTE,
    PROTOCOL_ENI,
    ROUTE,
    ROUTE_DESTINATION,
    ROUTE_INTERFACE,
    ROUTE_TABLE,
    UNICAST,
    UNREACHABLE,
    Address,
    Network,
    render_address,
    render_default_route,
    render_eni_route,
    render_link,
    render_no_eni_route,
)
from fargate_agent.plan import EniPlan

_GET_ADDRESS: Final = 22
_ADDRESS_ITSELF: Final = 1
_FIB_MATCH: Final = 0x2000
"""Source: Linux, include/uapi/linux/rtnetlink.h, `RTM_F_FIB_MATCH`."""
_SOL_NETLINK, _GET_STRICT_CHECK = 270, 12
"""Source: Linux, include/uapi/linux/netlink.h, `NETLINK_GET_STRICT_CHK`."""
_GONE: Final = frozenset({errno.ESRCH, errno.ENODEV, errno.ENETUNREACH, errno.ENOENT})
_NO_ROUTE: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ESRCH}
)
"""How the kernel answers where there is no route, or one that refuses."""
_LINK_LOCAL: Final = bytes.fromhex("fe80000000000000")
_NUMBER: Final = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class KnownRoute:
    """A route of the host."""

    network: Network
    kind: int
    interface: int
    """Index; 0 of one that leads nowhere."""
    table: int


class AddressInUseError(Exception):
    """The host has a route to an address already. `interface` is the index of where it leads."""

    def __init__(self, address: Address, interface: int) -> None:
        """Record both."""
        super().__init__(f"address {address} is already in use")
        self.address = address
        self.interface = interface


def addresses_of(eni: EniPlan) -> tuple[Address, ...]:
    """Return the addresses of an ENI."""
    return (eni.address.ip, *([eni.ipv6_address.ip] if eni.ipv6_address else ()))


def ranges_of(eni: EniPlan) -> frozenset[Network]:
    """Return the ranges of an ENI's VPC, of the versions of IP that the ENI has."""
    subnets = [eni.address.network, *([eni.ipv6_address.network] if eni.ipv6_address else ())]
    versions = {subnet.version for subnet in subnets}
    ranges = [one for one in eni.vpc_cidr_blocks if one.version in versions]
    return frozenset([*subnets, *ranges])


def furnish_task(task: socket.socket, pair: Pair, eni: EniPlan) -> None:
    """Give the task's end its MAC, addresses and routes, as they are on Fargate.

    Raises:
        NetlinkError: the kernel refused.
    """
    index, mtu = pair.inside, eni.mtu or MTU
    what = f"set up interface {eni.ifname}"
    requests = [
        Request(what, render_link(index, mac=eni.mac, mtu=mtu)),
        Request(f"add address {eni.address}", render_address(index, eni.address)),
        # As the kernel makes it of the MAC where an interface is switched on with it.
        Request(what, render_address(index, _link_local(eni.mac)), NO_IPV6),
    ]
    if eni.ipv6_address is not None:
        request = render_address(index, eni.ipv6_address)
        requests.append(Request(f"add address {eni.ipv6_address}", request))
    if eni.primary:
        for gateway in (eni.gateway, eni.ipv6_gateway if eni.ipv6_address else None):
            if gateway is not None:
                request = render_default_route(index, gateway)
                requests.append(Request(f"route through {gateway}", request))
    require_each(task, [*requests, *render_answers(index, eni)])


def claim(host: socket.socket, pair: Pair, eni: EniPlan, alias: str) -> None:
    """Give the host's end MAC, alias and gateway, and the addresses of the ENI their routes.

    The ENI gets all of them or none.

    Raises:
        AddressInUseError: one has a route that leads elsewhere.
        NetlinkError: the kernel refused.
    """
    index, mtu = pair.index, eni.mtu or MTU
    what = f"set up interface {pair.name}"
    requests = [Request(what, render_link(index, mac=eni.mac, alias=alias, mtu=mtu))]
    for gateway in _gateways(eni):
        address_request = render_address(index, gateway, with_route=False)
        requests.append(Request(f"add address {gateway}", address_request))
    routes = {one: render_eni_route(index, one) for one in addresses_of(eni)}
    requests += [Request(f"route to {one}", message) for one, message in routes.items()]
    refused = [
        (one, code) for one, code in zip(requests, ask_each(host, requests), strict=True) if code
    ]
    try:
        for refusal, code in refused:
            address = next((one for one in routes if routes[one] is refusal.message), None)
            if code != errno.EEXIST or address is None:
                raise NetlinkError(refusal.what, code)
            holder = find_interface(host, address)
            if holder != index:
                raise AddressInUseError(address, holder)
    except (NetlinkError, AddressInUseError):
        with suppress(NetlinkError):
            release(host, index, eni)
        raise


def release(host: socket.socket, index: int, eni: EniPlan) -> None:
    """Take the routes of an ENI back; those of another interface stay.

    Raises:
        NetlinkError: the kernel refused.
    """
    require_each(
        host,
        [
            Request(f"remove route to {one}", render_no_eni_route(index, one), _GONE)
            for one in addresses_of(eni)
        ],
    )


def find_interface(host: socket.socket, address: Address) -> int:
    """Return the index of the interface that the host's route to just one address leads to.

    0: there is no such route.

    Raises:
        NetlinkError: the kernel refused.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
    request = render_message(
        GET_ROUTE,
        NLM_F_REQUEST | NLM_F_ACK,
        head + render_attribute(ROUTE_DESTINATION, address.packed),
    )
    try:
        (answer,) = ask(host, f"find route to {address}", request)
    except NetlinkError as error:
        if error.code in _NO_ROUTE:
            return 0
        raise
    length = ROUTE.unpack_from(answer.payload)[1]
    if length != address.max_prefixlen:
        return 0
    (index,) = _NUMBER.unpack(read_attributes(answer.payload[ROUTE.size :])[ROUTE_INTERFACE])
    return int(index)


def read_eni_routes(host: socket.socket) -> list[KnownRoute]:
    """Return the routes of ENIs, of all agents, and what those have made unreachable.

    Raises:
        NetlinkError: the kernel refused.
    """
    with suppress(OSError):  # a kernel before 4.20 tells of all routes
        host.setsockopt(_SOL_NETLINK, _GET_STRICT_CHECK, 1)
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        head = ROUTE.pack(family, 0, 0, 0, 0, PROTOCOL_ENI, 0, 0, 0)
        request = render_message(GET_ROUTE, NLM_F_REQUEST | NLM_F_DUMP, head)
        try:
            answers = ask(host, "list routes", request)
        except NetlinkError as error:
            if error.code not in NO_IPV6:
                raise
        else:
            found += [route for route in map(_parse_route, answers) if route is not None]
    return found


def read_addresses(host: socket.socket) -> Iterator[tuple[int, IPv4Interface | IPv6Interface]]:
    """Yield every address of the host with the index of its interface.

    Raises:
        NetlinkError: the kernel refused.
    """
    head = ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    request = render_message(_GET_ADDRESS, NLM_F_REQUEST | NLM_F_DUMP, head)
    for answer in ask(host, "list addresses", request):
        family, length, _, _, index = ADDRESS.unpack_from(answer.payload)
        found = read_attributes(answer.payload[ADDRESS.size :])
        packed = found.get(ADDRESS_LOCAL) or found.get(_ADDRESS_ITSELF, b"")
        if family == socket.AF_INET:
            yield index, IPv4Interface((packed, length))
        elif family == socket.AF_INET6:
            yield index, IPv6Interface((packed, length))


def _parse_route(answer: Answer) -> KnownRoute | None:
    family, length, _, _, _, protocol, _, kind, _ = ROUTE.unpack_from(answer.payload)
    if protocol != PROTOCOL_ENI or kind not in (UNICAST, UNREACHABLE):
        return None
    found = read_attributes(answer.payload[ROUTE.size :])
    size = 4 if family == socket.AF_INET else 16
    packed = found.get(ROUTE_DESTINATION, bytes(size))
    table, interface = (
        _NUMBER.unpack(found.get(one, bytes(4)))[0] for one in (ROUTE_TABLE, ROUTE_INTERFACE)
    )
    return KnownRoute(
        network=ip_network((packed, length)),
        kind=kind,
        # Where the kernel keeps a route of IPv6 that leads nowhere, it names the loopback.
        interface=interface if kind == UNICAST else 0,
        table=table,
    )


def _gateways(eni: EniPlan) -> Iterator[IPv4Interface | IPv6Interface]:
    """The addresses of the host's end."""
    yield IPv4Interface(eni.gateway)
    if eni.ipv6_address is not None and eni.ipv6_gateway is not None:
        yield IPv6Interface(eni.ipv6_gateway)


def _link_local(mac: str) -> IPv6Interface:
    """Source: RFC 4291, appendix A."""
    octets = bytes.fromhex(mac.replace(":", ""))
    last = bytes([octets[0] ^ 0x02]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Interface((_LINK_LOCAL + last, 64))
