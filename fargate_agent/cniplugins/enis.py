"""NICs of the host as containers are to have them."""

import errno
from contextlib import suppress
from ipaddress import ip_network
from typing import Final, NamedTuple

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.nics import find_nic
from fargate_agent.cniplugins.results import (
    Address,
    AddressWithRange,
    Interface,
    Ip,
    Result,
    Route,
)
from fargate_agent.cniplugins.sandboxes import BLACKHOLES, Place, render_blackholes
from fargate_agent.network.blocking import NetlinkError, Request, ask_each, require_each
from fargate_agent.network.link_requests import (
    LinkState,
    WantedRoute,
    find_link,
    list_links,
    list_routes,
    render_global_address,
    render_no_route,
    render_route,
)
from fargate_agent.network.rtnetlink import UP, render_link

EVERYWHERE: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_NO_ROUTE: Final = frozenset({errno.ESRCH})
_THERE: Final = frozenset({errno.EEXIST})


class EniConfig(NamedTuple):
    """What a container's NIC is to be like."""

    mac: str
    """Empty: whatever the device of that name has."""
    addresses: tuple[AddressWithRange, ...]
    gateways: tuple[Address, ...]
    blocks_imds: bool
    stays_down: bool
    """Whether the container configures the NIC itself: it has the name of before, and is down."""
    mtu: int
    """In bytes; 0: the NIC's own."""
    device: str = ""
    """Its name on the host; empty: whatever the one with that MAC has."""


def get_nic(host: Place, device: str, mac: str) -> LinkState:
    """Return the NIC of the host with that name and that MAC, of which one may be empty.

    Raises:
        CniError: there is none.
        NetlinkError: the kernel refused.
    """
    if not device:
        nic = find_nic(host, mac)
        if nic is None:
            raise CniError(f"unable to find the device with mac address {mac}")
        return nic
    nic = find_link(host.link, device)
    if nic is None:
        raise CniError(f"unable to find the device named {device}")
    if mac and mac not in {nic.mac, nic.permanent_mac}:
        raise CniError(f"the device named {device} has mac address {nic.mac}, not {mac}")
    return nic


def furnish(call: Call, container: Place, link: LinkState, eni: EniConfig) -> tuple[Route, ...]:
    """Give a NIC what it is told to have; return the routes that are new.

    Raises:
        NetlinkError: the kernel refused.
    """
    index = link.ifindex
    requests = [
        Request(f"add address {one}", render_global_address(index, one)) for one in eni.addresses
    ]
    up = render_link(index, mtu=eni.mtu or None, flags=UP)
    requests.append(Request(f"bring {link.name} up", up))
    if eni.blocks_imds:
        requests += render_blackholes()
    require_each(container.link, requests)
    routes = [Route(EVERYWHERE[one.version], one) for one in eni.gateways]
    wanted = [
        Request(
            f"route by {one.gateway}", render_route(WantedRoute(one.to, index, one.gateway)), _THERE
        )
        for one in routes
    ]
    if not wanted:
        return ()
    codes = ask_each(container.link, wanted)
    for request, code in zip(wanted, codes, strict=True):
        if code not in request.fine | {0}:
            raise NetlinkError(request.what, code)
        if code:
            call.journal.warn(f"{request.what}: the container has a default route already")
    return tuple(one for one, code in zip(routes, codes, strict=True) if not code)


def describe(call: Call, link: LinkState, eni: EniConfig, routes: tuple[Route, ...]) -> Result:
    """Return the result of an ADD."""
    gateways = {one.version: one for one in reversed(eni.gateways)}
    ips = (
        ()
        if eni.stays_down
        else tuple(Ip(one, gateways.get(one.version), 0) for one in eni.addresses)
    )
    return Result((Interface(link.name, link.mac, call.netns, link.mtu),), ips, routes)


def unblock(container: Place) -> None:
    """Remove what keeps a container from instance metadata, if it has no interface any more.

    Raises:
        NetlinkError: the kernel refused.
    """
    if any(one.name != "lo" for one in list_links(container.link)):
        return
    for blackhole in BLACKHOLES:
        with suppress(NetlinkError):  # there may be no such version of IP
            for route in list_routes(container.link, blackhole.to.version):
                if (route.to, route.kind) == (blackhole.to, blackhole.kind):
                    request = Request("remove blackhole", render_no_route(route), _NO_ROUTE)
                    require_each(container.link, [request])
