"""Requests about interfaces that hang on others, as bytes.

Beside `fargate_agent.network.link_requests`, and as quick to load. All numbers: Linux,
include/uapi/linux/if_link.h, rtnetlink.h and neighbour.h.
"""

import socket
import struct
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    RTM_DELLINK,
    render_attribute,
    render_message,
)
from fargate_agent.network.rtnetlink import (
    LINK,
    LINK_ADDRESS,
    LINK_ALIAS,
    LINK_LINK,
    LINK_MASTER,
    LINK_MTU,
    LINK_NAME,
    NEW_LINK,
    NLM_F_EXCL,
    SET_LINK,
)

_LINK_INFO, _LINK_NETNS_FD = 18, 28
_INFO_KIND, _INFO_DATA = 1, 2
_VLAN_ID: Final = 1
_MACVLAN_MODE, _PASSTHRU = 1, 8
_DELETE_NEIGHBOUR, _NEIGHBOUR_MAC, _OF_MASTER = 29, 2, 0x04
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_NUMBER: Final = struct.Struct("=I")


def render_vlan(name: str, trunk: int, vlan_id: int, netns: int, mac: str) -> bytes:
    """Make a VLAN of a trunk, straight in the namespace open as `netns`; it is down.

    `mac` may be empty: then it has that of the trunk. The name has to be free in both namespaces.
    """
    attributes = _text(LINK_NAME, name) + _number(LINK_LINK, trunk) + _number(_LINK_NETNS_FD, netns)
    if mac:
        attributes += render_attribute(LINK_ADDRESS, _read_mac(mac))
    data = render_attribute(_VLAN_ID, struct.pack("=H", vlan_id))
    return _render_new_link(attributes, "vlan", data)


def render_macvtap(name: str, parent: int) -> bytes:
    """Make what gives all that an interface gets to a program, and has its MAC; it is down."""
    attributes = _text(LINK_NAME, name) + _number(LINK_LINK, parent)
    return _render_new_link(attributes, "macvtap", _number(_MACVLAN_MODE, _PASSTHRU))


def render_settled(
    index: int, name: str, alias: str, *, mac: str = "", mtu: int = 0, master: int = 0
) -> bytes:
    """Give an interface that is down its name, its alias, and what else is given, at once."""
    attributes = _text(LINK_NAME, name) + _text(LINK_ALIAS, alias)
    if mac:
        attributes += render_attribute(LINK_ADDRESS, _read_mac(mac))
    if mtu:
        attributes += _number(LINK_MTU, mtu)
    if master:
        attributes += _number(LINK_MASTER, master)
    head = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return render_message(SET_LINK, NLM_F_REQUEST, head + attributes)


def render_no_link(index: int) -> bytes:
    """Remove an interface."""
    return render_message(RTM_DELLINK, NLM_F_REQUEST, LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))


def render_not_of_bridge(port: int, mac: str) -> bytes:
    """Have a bridge not take for itself what is sent to the MAC of one of its ports."""
    head = _NEIGHBOUR.pack(socket.AF_BRIDGE, port, 0, _OF_MASTER, 0)
    attributes = render_attribute(_NEIGHBOUR_MAC, _read_mac(mac))
    return render_message(_DELETE_NEIGHBOUR, NLM_F_REQUEST, head + attributes)


def _render_new_link(attributes: bytes, kind: str, data: bytes) -> bytes:
    head = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    info = _text(_INFO_KIND, kind) + render_attribute(_INFO_DATA, data)
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK
    return render_message(NEW_LINK, flags, head + attributes + render_attribute(_LINK_INFO, info))


def _read_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _number(kind: int, value: int) -> bytes:
    return render_attribute(kind, _NUMBER.pack(value))


def _text(kind: int, value: str) -> bytes:
    return render_attribute(kind, value.encode() + b"\0")
