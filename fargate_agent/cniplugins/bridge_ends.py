"""A bridge of the host, and the pairs of interfaces by which containers hang on it.

The host's end of a pair has the mark of its attachment. It is removed by that alone, or, if a call
was cut short before it was marked, by the container's end whose other end it is.
"""

import errno
import os
from collections.abc import Collection
from ipaddress import ip_interface
from typing import Final, NamedTuple

from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.marks import host_end_names
from fargate_agent.cniplugins.results import Address, AddressWithRange, Ip
from fargate_agent.cniplugins.sandboxes import Place
from fargate_agent.network.blocking import NetlinkError, Request, ask, delete_link, require_each
from fargate_agent.network.link_requests import (
    LinkState,
    find_link,
    find_link_by_index,
    get_link,
    list_addresses,
    list_links,
    render_bridge,
    render_global_address,
    render_veth,
)
from fargate_agent.network.rtnetlink import UP, render_link

_FAMILIES: Final = {4: 2, 6: 10}
"""As messages have them. Source: Linux, include/linux/socket.h, `AF_INET`, `AF_INET6`."""


def ensure_bridge(host: Place, name: str, mtu: int) -> LinkState:
    """Return the bridge of that name, which is up; if there is none, make it.

    Raises:
        CniError: an interface that isn't a bridge has the name.
        NetlinkError: the kernel refused.
    """
    bridge = find_bridge(host, name)
    if bridge is None:
        try:
            ask(host.link, f"make bridge {name}", render_bridge(name, random_mac(), mtu))
        except NetlinkError as error:
            if error.code != errno.EEXIST:  # another call has just made it
                raise
        bridge = find_bridge(host, name) or get_link(host.link, name)
    if not bridge.is_up:
        up = render_link(bridge.ifindex, flags=UP)
        require_each(host.link, [Request(f"bring bridge {name} up", up)])
    return bridge


def find_bridge(host: Place, name: str) -> LinkState | None:
    """Return the bridge of that name, if there is one.

    Raises:
        CniError: an interface that isn't a bridge has the name.
        NetlinkError: the kernel refused.
    """
    bridge = find_link(host.link, name)
    if bridge is not None and bridge.kind != "bridge":
        raise CniError(f"bridge create: interface named {name} already exists, but is not a bridge")
    return bridge


def address_bridge(host: Place, bridge: LinkState, ips: Collection[Ip]) -> None:
    """Give a bridge the addresses that are gateways of a container.

    Raises:
        CniError: it has others.
        NetlinkError: the kernel refused.
    """
    there = [one for ifindex, one in list_addresses(host.link) if ifindex == bridge.ifindex]
    for ip in ips:
        wanted = ip_interface(f"{ip.gateway}/{ip.address.network.prefixlen}")
        if wanted in there:
            continue
        if any(_conflicts(one, wanted) for one in there):
            family = _FAMILIES[wanted.version]
            text = f"bridge configure: mismatch in bridge {bridge.name} address for family {family}"
            raise CniError(text)
        request = render_global_address(bridge.ifindex, wanted)
        require_each(host.link, [Request(f"add address {wanted} to {bridge.name}", request)])


def _conflicts(there: AddressWithRange, wanted: AddressWithRange) -> bool:
    is_local = there.version == 6 and there.is_link_local  # the kernel makes these
    return there.version == wanted.version and not is_local


class WantedEnds(NamedTuple):
    """A pair that is to be made."""

    ifname: str
    """Of the container's end."""
    mark: str
    """Of the host's end."""
    mtu: int
    """In bytes."""
    mac: str
    """Of the container's end; empty: any."""


def make_ends(host: Place, container: Place, bridge: LinkState, wanted: WantedEnds) -> LinkState:
    """Make a pair whose end on the host is a port of the bridge; return that end.

    Raises:
        NetlinkError: the kernel refused, or all names are taken.
    """
    what = f"make interface {wanted.ifname}"
    for name in host_end_names(wanted.mark):
        request = render_veth(name, wanted.ifname, container.descriptor, wanted.mtu, wanted.mac)
        try:
            ask(host.link, what, request)
        except NetlinkError as error:
            if error.code != errno.EEXIST or find_link(host.link, name) is None:
                raise
        else:
            break
    else:
        raise NetlinkError(what, errno.EEXIST)
    end = get_link(host.link, name)
    settings = render_link(end.ifindex, alias=wanted.mark, master=bridge.ifindex, flags=UP)
    require_each(host.link, [Request(f"attach {name} to {bridge.name}", settings)])
    return end


def find_end(host: Place, mark: str) -> LinkState | None:
    """Return the host's end of an attachment.

    Raises:
        NetlinkError: the kernel refused.
    """
    for name in host_end_names(mark):
        end = find_link(host.link, name)
        if end is not None and end.alias == mark:
            return end
    return None


def remove_ends(host: Place, container: Place | None, ifname: str, mark: str) -> None:
    """Remove the pair of an attachment, if there is any of it. Nobody else's is touched.

    Raises:
        NetlinkError: the kernel refused.
    """
    end = find_end(host, mark)
    if end is None and container is not None:
        end = _find_unmarked(host, container, ifname, mark)
    if end is not None:
        delete_link(None, end.ifindex)


def _find_unmarked(host: Place, container: Place, ifname: str, mark: str) -> LinkState | None:
    """Return the host's end that has no mark yet, by the end that is in the container."""
    inside = find_link(container.link, ifname)
    if inside is None or inside.kind != "veth" or not inside.peer:
        return None
    end = find_link_by_index(host.link, inside.peer)
    if end is None or (end.kind, end.peer, end.alias) != ("veth", inside.ifindex, ""):
        return None
    return end if end.name in host_end_names(mark) else None


def remove_ends_but(host: Place, prefix: str, kept: Collection[str]) -> list[str]:
    """Remove all pairs whose marks begin like that, but those kept; return what went wrong.

    Raises:
        NetlinkError: the kernel doesn't tell of them.
    """
    faults = []
    for end in list_links(host.link):
        if end.alias.startswith(prefix) and end.alias not in kept and end.kind == "veth":
            try:
                delete_link(None, end.ifindex)
            except NetlinkError as error:
                faults.append(f"{end.name}: {error}")
    return faults


def has_interface(container: Place, ifname: str) -> bool:
    """Whether a container has an interface of that name.

    Raises:
        NetlinkError: the kernel refused.
    """
    return find_link(container.link, ifname) is not None


def name_mac(address: Address) -> str:
    """Return the MAC that goes with an IPv4 address.

    Source: containernetworking/plugins, pkg/utils/hwaddr, of when ecs-bridge was written.
    """
    return (b"\x0a\x58" + address.packed).hex(":")


def random_mac() -> str:
    """Return a MAC that no hardware has."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02  # of nobody's hardware, and no group's
    return octets.hex(":")
