"""Interfaces of a branch ENI: a VLAN, and what a virtual machine takes it by.

All numbers: Linux, include/uapi/linux/if_link.h and if_tun.h.
"""

import fcntl
import os
import socket
import struct
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    render_attribute,
    render_message,
)
from fargate_agent.network.namespaces import inside
from fargate_agent.network.rtnetlink import (
    LINK,
    LINK_ADDRESS,
    LINK_LINK,
    LINK_NAME,
    NEW_LINK,
    NLM_F_EXCL,
)

_LINK_INFO, _LINK_NETNS_FD, _INFO_KIND, _INFO_DATA = 18, 28, 1, 2
_VLAN_ID, _MACVTAP_MODE, _PASSTHROUGH = 1, 1, 8
_NUMBER: Final = struct.Struct("=I")
_TUN: Final = "/dev/net/tun"
_SET_IFF, _SET_PERSIST, _SET_OWNER, _SET_GROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
_TAP, _NO_PI, _ONE_QUEUE, _VNET_HDR = 0x0002, 0x1000, 0x2000, 0x4000
_IFREQ: Final = struct.Struct("16sH22x")


def render_vlan(trunk: int, vlan_id: int, netns: int, name: str, mac: str) -> bytes:
    """Make a VLAN of the interface with the index `trunk` in the namespace open as `netns`."""
    number = render_attribute(_VLAN_ID, struct.pack("=H", vlan_id))
    place = render_attribute(_LINK_NETNS_FD, _NUMBER.pack(netns))
    return _render("vlan", number, trunk, name, mac, place)


def render_macvtap(parent: int, name: str, mac: str) -> bytes:
    """Make an interface that hands all frames of its parent to who opens it."""
    mode = render_attribute(_MACVTAP_MODE, _NUMBER.pack(_PASSTHROUGH))
    return _render("macvtap", mode, parent, name, mac)


def make_tap(netns: str, name: str, uid: int, gid: int) -> None:
    """Make a TAP in a namespace that a user and a group may open; it stays, and is down.

    Raises:
        OSError: the kernel refused, or has no TAP.
    """
    with inside(netns):
        tun = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
        try:
            flags = _TAP | _NO_PI | _ONE_QUEUE | _VNET_HDR
            fcntl.ioctl(tun, _SET_IFF, _IFREQ.pack(name.encode(), flags))
            fcntl.ioctl(tun, _SET_OWNER, uid)
            fcntl.ioctl(tun, _SET_GROUP, gid)
            fcntl.ioctl(tun, _SET_PERSIST, 1)
        finally:
            os.close(tun)


def _render(kind: str, data: bytes, parent: int, name: str, mac: str, more: bytes = b"") -> bytes:
    info = render_attribute(_INFO_KIND, kind.encode() + b"\0")
    info += render_attribute(_INFO_DATA, data)
    attributes = render_attribute(LINK_NAME, name.encode() + b"\0")
    attributes += render_attribute(LINK_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    attributes += render_attribute(LINK_LINK, _NUMBER.pack(parent)) + more
    head = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK
    return render_message(NEW_LINK, flags, head + attributes + render_attribute(_LINK_INFO, info))
