"""Flows that the kernel tracks, taken away by the address of the task that has ended.

A task that is given the address next would else inherit them, and what belongs to them passes its
security groups. All numbers: Linux, include/uapi/linux/netfilter/nfnetlink_conntrack.h and
nfnetlink.h.
"""

import errno
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkError,
    Request,
    ask_bit_by_bit,
    open_netlink,
    read_attributes,
    render_attribute,
    render_message,
    require_each,
)

_NETFILTER: Final = 12
"""Source: Linux, include/uapi/linux/netlink.h; Python names it from 3.12 on."""
_SUBSYSTEM: Final = 1
_GET, _DELETE = _SUBSYSTEM << 8 | 1, _SUBSYSTEM << 8 | 2
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_ADDRESSES: Final = 1
_SOURCE: Final = {4: 1, 6: 3}
_SIDES: Final = (_ORIGINAL, _REPLY)
_BY: Final = {_ORIGINAL: 1, _REPLY: 2}
_BY_SOURCE: Final = 1
_NESTED: Final = 0x8000
_HEADER: Final = struct.Struct("!BBH")

_NOT_THERE: Final = frozenset({errno.ENOENT})
_NOT_TRACKING: Final = frozenset({errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP})
"""How a kernel answers that tracks no flows, or has no netfilter."""

_AT_ONCE: Final = 50
"""Requests in one send; the answers to them fit into the socket's buffer."""

FEW: Final = 4
"""Of so many addresses the kernel is asked for the flows of each; of more, for all flows."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_IsMeant = Callable[[bytes], bool]


def forget_flows(addresses: Collection[Address]) -> None:
    """Have the kernel forget every flow that one of the addresses has begun or been sent.

    Blocks for the walk through the table of flows, some milliseconds for each address or for all.

    Raises:
        NetlinkError: the kernel refused.
    """
    with _tracking() as link:
        if len(addresses) <= FEW:
            for address in addresses:
                for side in _SIDES:
                    _forget(link, address.version, {address.packed}.__contains__, (address, side))
        else:
            for version in {one.version for one in addresses}:
                packed = {one.packed for one in addresses if one.version == version}
                _forget(link, version, packed.__contains__)


def forget_flows_within(networks: Collection[Network], but: Collection[Address]) -> None:
    """Have the kernel forget the flows of all addresses of networks, but for some.

    Blocks as `forget_flows` does for many.

    Raises:
        NetlinkError: the kernel refused.
    """
    kept = {address.packed for address in but}

    def is_meant(packed: bytes) -> bool:
        address = ip_address(packed)
        return packed not in kept and any(
            address.version == one.version and address in one for one in networks
        )

    with _tracking() as link:
        for version in {one.version for one in networks}:
            _forget(link, version, is_meant)


@contextmanager
def _tracking() -> Iterator[socket.socket]:
    try:
        with open_netlink(None, _NETFILTER) as link:
            yield link
    except NetlinkError as error:
        if error.code not in _NOT_TRACKING:
            raise


def _forget(
    link: socket.socket,
    version: int,
    is_meant: _IsMeant,
    only: tuple[Address, int] | None = None,
) -> None:
    """Forget the flows whose packets of one direction come from an address that is meant.

    Where the host translates addresses, the answers still come from the task's own.

    Args:
        link: a socket for it.
        version: of IP.
        is_meant: says so of an address as the kernel writes it.
        only: what the kernel is to look for itself, and in which direction. Those before 5.8 can't
            and tell of all flows.
    """
    family = _HEADER.pack(socket.AF_INET if version == 4 else socket.AF_INET6, 0, 0)
    what = "forget flows"
    dump = render_message(
        _GET, NLM_F_REQUEST | NLM_F_DUMP, family + (_render_filter(*only) if only else b"")
    )
    found = []
    for answer in ask_bit_by_bit(link, what, dump):
        flow = read_attributes(answer.payload[_HEADER.size :])
        if any(is_meant(_read_source(flow.get(side, b""), version)) for side in _SIDES):
            found.append(_name(flow))
    for begin in range(0, len(found), _AT_ONCE):
        names = found[begin : begin + _AT_ONCE]
        requests = [render_message(_DELETE, NLM_F_REQUEST, family + name) for name in names]
        require_each(link, [Request(what, request, _NOT_THERE) for request in requests])


def _render_filter(address: Address, side: int) -> bytes:
    source = render_attribute(_SOURCE[address.version], address.packed)
    flags = {_BY[one]: _BY_SOURCE if one == side else 0 for one in _SIDES}
    return _nested(side, _nested(_ADDRESSES, source)) + _nested(
        _FILTER,
        b"".join(render_attribute(one, struct.pack("=I", flag)) for one, flag in flags.items()),
    )


def _read_source(direction: bytes, version: int) -> bytes:
    """The source of a flow's packets of one direction."""
    addresses = read_attributes(read_attributes(direction).get(_ADDRESSES, b""))
    return addresses.get(_SOURCE[version], bytes(4 if version == 4 else 16))


def _name(flow: dict[int, bytes]) -> bytes:
    """What tells a flow from a later one with the same addresses and ports."""
    name = _nested(_ORIGINAL, flow[_ORIGINAL])
    return name + b"".join(
        render_attribute(kind, flow[kind]) for kind in (_ID, _ZONE) if kind in flow
    )


def _nested(kind: int, attributes: bytes) -> bytes:
    return render_attribute(kind | _NESTED, attributes)
