"""Flows that the kernel tracks, taken away by the address of the task that has ended.

A task that is given the address next would else inherit them, and what belongs to them passes its
security groups. All numbers: Linux, include/uapi/linux/netfilter/nfnetlink_conntrack.h and
nfnetlink.h.
"""

import errno
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkError,
    Request,
    ask,
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
_BY_ORIGINAL, _BY_REPLY = 1, 2
_BY_SOURCE: Final = 1
_NESTED: Final = 0x8000
_HEADER: Final = struct.Struct("!BBH")

_NOT_THERE: Final = frozenset({errno.ENOENT})
_NOT_TRACKING: Final = frozenset({errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP})
"""How a kernel answers that tracks no flows, or has no netfilter."""

_AT_ONCE: Final = 50
"""Requests in one send; the answers to them fit into the socket's buffer."""

Address = IPv4Address | IPv6Address


def forget_flows(addresses: Iterable[Address]) -> None:
    """Have the kernel forget every flow that one of the addresses has begun or been sent.

    Blocks, for 0.1 ms and, on a host with many flows, for the walk through all of them.

    Raises:
        NetlinkError: the kernel refused.
    """
    try:
        with open_netlink(None, _NETFILTER) as link:
            for address in addresses:
                # Where the host translates addresses, the answers still come from the task's own.
                for side, filtered in ((_ORIGINAL, _BY_ORIGINAL), (_REPLY, _BY_REPLY)):
                    _forget(link, address, side, filtered)
    except NetlinkError as error:
        if error.code not in _NOT_TRACKING:
            raise


def _forget(link: socket.socket, address: Address, side: int, filtered: int) -> None:
    """Forget the flows whose packets of one direction come from an address.

    Kernels before 5.8 know no filter and tell of all flows, so each is looked at.
    """
    family = _HEADER.pack(socket.AF_INET if address.version == 4 else socket.AF_INET6, 0, 0)
    source = render_attribute(_SOURCE[address.version], address.packed)
    flags = {_BY_ORIGINAL: 0, _BY_REPLY: 0, filtered: _BY_SOURCE}
    wanted = _nested(side, _nested(_ADDRESSES, source)) + _nested(
        _FILTER,
        b"".join(render_attribute(one, struct.pack("=I", flag)) for one, flag in flags.items()),
    )
    what = f"forget flows of {address}"
    dump = render_message(_GET, NLM_F_REQUEST | NLM_F_DUMP, family + wanted)
    found = []
    for answer in ask(link, what, dump):
        flow = read_attributes(answer.payload[_HEADER.size :])
        ends = read_attributes(read_attributes(flow.get(side, b"")).get(_ADDRESSES, b""))
        if ends.get(_SOURCE[address.version]) == address.packed:
            found.append(flow)
    for begin in range(0, len(found), _AT_ONCE):
        require_each(
            link,
            [
                Request(
                    what, render_message(_DELETE, NLM_F_REQUEST, family + _name(flow)), _NOT_THERE
                )
                for flow in found[begin : begin + _AT_ONCE]
            ],
        )


def _name(flow: dict[int, bytes]) -> bytes:
    """What tells a flow from a later one with the same addresses and ports."""
    name = _nested(_ORIGINAL, flow[_ORIGINAL])
    return name + b"".join(
        render_attribute(kind, flow[kind]) for kind in (_ID, _ZONE) if kind in flow
    )


def _nested(kind: int, attributes: bytes) -> bytes:
    return render_attribute(kind | _NESTED, attributes)
