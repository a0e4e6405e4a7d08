"""The interfaces by which a container, or a virtual machine in it, has a VLAN of a trunk.

All are made in the container's namespace and go with it. Each is made under a name that follows
from the mark of its attachment. Then it gets its own name and the mark, in its alias, at once. So
whatever a call was killed at, what it left is known.
"""

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Collection
from typing import Final, NamedTuple

from fargate_agent.cniplugins.bridge_ends import random_mac
from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.sandboxes import Place, list_named, open_place
from fargate_agent.network.blocking import NetlinkError, Request, ask, require_each
from fargate_agent.network.link_requests import (
    LinkState,
    get_link,
    list_links,
    render_bridge,
)
from fargate_agent.network.namespaces import inside
from fargate_agent.network.rtnetlink import UP, render_link
from fargate_agent.network.stacked_links import (
    render_macvtap,
    render_no_link,
    render_not_of_bridge,
    render_settled,
    render_vlan,
)

JUMBO_MTU: Final = 9001
"""In bytes, of what a virtual machine hangs on. Source: amazon-vpc-cni-plugins, network/vpc."""
VLAN, BRIDGE, TAP, MACVTAP = "vlan", "bridge", "tap", "macvtap"
"""What interfaces are for."""
TUN_DEVICE: Final = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER, _TUNSETGROUP = (
    0x400454CA,
    0x400454CB,
    0x400454CC,
    0x400454CE,
)
_IFF_TAP, _IFF_ONE_QUEUE, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0002, 0x2000, 0x4000, 0x8000
"""Source: Linux, include/uapi/linux/if_tun.h."""
_INTERFACE_REQUEST: Final = struct.Struct("16sH22x")
_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT})


class WantedTap(NamedTuple):
    """A TAP interface that is to be made, on a bridge with a branch."""

    name: str
    mac: str
    """Of the virtual machine's NIC."""
    uid: int
    gid: int
    """Who may open it."""
    bridge: str


def make_branch(
    host: Place, container: Place, trunk: LinkState, vlan_id: int, mark: str, mac: str
) -> LinkState:
    """Make a VLAN of a trunk in a container; it has no name of its own yet. `mac` may be empty.

    Raises:
        CniError: the VLAN is in use, or the kernel has none.
        NetlinkError: the kernel refused.
    """
    draft = draft_name(VLAN, mark)
    request = render_vlan(draft, trunk.ifindex, vlan_id, container.descriptor, mac)
    try:
        ask(host.link, f"make VLAN {vlan_id} of {trunk.name}", request)
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            text = f"VLAN {vlan_id} of trunk {trunk.name} is in use on this machine"
            raise CniError(text) from error
        if error.code == errno.EOPNOTSUPP:
            raise CniError("the kernel has no module 8021q for VLANs") from error
        raise
    return get_link(container.link, draft)


def settle(container: Place, link: LinkState, name: str, mark: str) -> LinkState:
    """Give an interface its own name; return it as it is then.

    Raises:
        NetlinkError: the kernel refused, e.g. because the name is taken.
    """
    what = f"name {link.kind or 'interface'} {name}"
    require_each(container.link, [Request(what, render_settled(link.ifindex, name, mark))])
    return get_link(container.link, name)


def connect_tap(container: Place, branch: LinkState, mark: str, wanted: WantedTap) -> LinkState:
    """Make a TAP interface, and a bridge that it and the branch hang on; the branch stays down.

    Raises:
        NetlinkError, OSError: the kernel refused.
    """
    draft, mac = draft_name(BRIDGE, mark), random_mac()
    ask(container.link, f"make bridge {wanted.bridge}", render_bridge(draft, mac, JUMBO_MTU))
    bridge = settle(container, get_link(container.link, draft), wanted.bridge, mark)
    _make_tap(container, draft_name(TAP, mark), wanted.uid, wanted.gid)
    tap = get_link(container.link, draft_name(TAP, mark))
    master = bridge.ifindex
    settled = render_settled(
        tap.ifindex, wanted.name, mark, mac=wanted.mac, mtu=JUMBO_MTU, master=master
    )
    hang = render_link(branch.ifindex, mac=mac, master=master)
    requests = [
        Request(f"hang {branch.name} on {bridge.name}", hang),
        Request(f"hang {wanted.name} on {bridge.name}", settled),
        # What is for the virtual machine has to reach the TAP, and not the bridge.
        Request(f"learn {wanted.mac}", render_not_of_bridge(tap.ifindex, wanted.mac)),
        Request(f"bring {bridge.name} up", render_link(bridge.ifindex, flags=UP)),
        Request(f"bring {wanted.name} up", render_link(tap.ifindex, flags=UP)),
    ]
    require_each(container.link, requests)
    return get_link(container.link, wanted.name)


def connect_macvtap(container: Place, branch: LinkState, mark: str, name: str) -> LinkState:
    """Make a MACVTAP interface that has all that the branch gets; the branch stays down.

    Raises:
        NetlinkError: the kernel refused.
    """
    draft = draft_name(MACVTAP, mark)
    ask(container.link, f"make MACVTAP {name}", render_macvtap(draft, branch.ifindex))
    return settle(container, get_link(container.link, draft), name, mark)


def bring_up(container: Place, link: LinkState) -> None:
    """Switch an interface on.

    Raises:
        NetlinkError: the kernel refused.
    """
    up = Request(f"bring {link.name} up", render_link(link.ifindex, flags=UP))
    require_each(container.link, [up])


def list_marked(container: Place, mark: str) -> list[LinkState]:
    """Return the interfaces of an attachment, also those that a killed call left.

    Raises:
        NetlinkError: the kernel refused.
    """
    drafts = {draft_name(one, mark) for one in (VLAN, BRIDGE, TAP, MACVTAP)}
    links = list_links(container.link)
    return [one for one in links if one.alias == mark or (not one.alias and one.name in drafts)]


def remove_marked(container: Place, mark: str) -> None:
    """Remove the interfaces of an attachment; nothing is missing if there are none.

    Raises:
        NetlinkError: the kernel refused.
    """
    links = list_marked(container, mark)
    if links:
        requests = [
            Request(f"remove {one.name}", render_no_link(one.ifindex), _GONE)
            for one in reversed(links)
        ]
        require_each(container.link, requests)


def remove_all_but(prefix: str, kept: Collection[str]) -> list[str]:
    """Remove interfaces of containers whose marks begin like that, but those kept.

    Returns what went wrong.

    Raises:
        OSError: the namespaces of the machine can't be listed.
    """
    faults = []
    for path in list_named():
        try:
            with open_place(path) as place:
                marks = {one.alias for one in list_links(place.link)}
                for mark in marks - set(kept):
                    if mark.startswith(prefix):
                        remove_marked(place, mark)
        except (NetlinkError, OSError) as error:
            faults.append(f"{path}: {error}")
    return faults


def _make_tap(container: Place, name: str, uid: int, gid: int) -> None:
    """Make a TAP interface that stays; it is down."""
    flags = _IFF_TAP | _IFF_VNET_HDR | _IFF_ONE_QUEUE | _IFF_TUN_EXCL
    with inside(container.path):
        tun = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(tun, _TUNSETIFF, _INTERFACE_REQUEST.pack(name.encode(), flags))
            fcntl.ioctl(tun, _TUNSETOWNER, _signed(uid))
            fcntl.ioctl(tun, _TUNSETGROUP, _signed(gid))
            fcntl.ioctl(tun, _TUNSETPERSIST, 1)
        finally:
            os.close(tun)


def _signed(number: int) -> int:
    """Return what Python has to be given for a number of 32 bits without a sign."""
    return number - (1 << 32) if number >> 31 else number


def draft_name(what: str, mark: str) -> str:
    """Return what an interface of an attachment is called until it has a name of its own."""
    return f"cni{zlib.crc32(f'{what}{mark}'.encode()):08x}"
