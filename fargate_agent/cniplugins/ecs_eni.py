"""ecs-eni: moves a NIC of the host, an elastic network interface (ENI), into a container.

Names and messages: amazon-ecs-cni-plugins, plugins/eni. Other than there, a failed ADD gives the
NIC back, and so does DEL.
"""

import errno
from contextlib import suppress
from ipaddress import ip_network
from typing import Final, NamedTuple

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.checks import check_interface
from fargate_agent.cniplugins.errors import INVALID_CONFIG, NOT_AVAILABLE, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.locks import turn
from fargate_agent.cniplugins.marks import network_prefix, render_mark
from fargate_agent.cniplugins.nics import (
    TURN,
    find_nic,
    find_taken,
    give_back,
    give_back_unmarked,
    list_marks,
    refuse_used,
    take,
)
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.results import (
    Address,
    AddressWithRange,
    Interface,
    Ip,
    Result,
    Route,
    parse_address,
    parse_address_with_range,
)
from fargate_agent.cniplugins.sandboxes import (
    BLACKHOLES,
    Place,
    list_named,
    open_container,
    open_host,
    open_place,
    render_blackholes,
)
from fargate_agent.network.blocking import NetlinkError, Request, ask_each, require_each
from fargate_agent.network.link_requests import (
    LinkState,
    WantedRoute,
    find_link,
    get_link,
    list_links,
    list_routes,
    render_global_address,
    render_no_route,
    render_route,
)
from fargate_agent.network.rtnetlink import UP, render_link

NAME: Final = "ecs-eni"
_NO_ROUTE: Final = frozenset({errno.ESRCH})
_THERE: Final = frozenset({errno.EEXIST})
EVERYWHERE: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


class EniConfig(NamedTuple):
    """What ecs-eni is told."""

    mac: str
    addresses: tuple[AddressWithRange, ...]
    gateways: tuple[Address, ...]
    blocks_imds: bool
    stays_down: bool
    """Whether the container configures the NIC itself: it has the name of before, and is down."""
    mtu: int
    """In bytes; 0: the NIC's own."""


def read_eni(config: Fields) -> EniConfig:
    """Read a configuration.

    Raises:
        CniError: it isn't right.
    """
    for name in ("eni", "mac"):
        _require(config.text(name), name)
    addresses = tuple(
        parse_address_with_range(one, "ip-addresses") for one in config.texts("ip-addresses")
    )
    _require(addresses, "ip-addresses")
    gateways = tuple(
        parse_address(one, "gateway-ip-addresses") for one in config.texts("gateway-ip-addresses")
    )
    mtu = config.number("mtu")
    if mtu < 0:
        raise CniError(f"newconf types: invalid mtu: {mtu}", INVALID_CONFIG)
    return EniConfig(
        read_mac(config.text("mac")),
        addresses,
        gateways,
        config.flag("block-instance-metadata"),
        config.flag("stay-down"),
        mtu,
    )


def read_mac(text: str) -> str:
    """Return a MAC as the kernel writes it.

    Raises:
        CniError: it is none.
    """
    octets = text.lower().replace("-", ":").split(":")
    is_right = all(len(one) == 2 and one.isalnum() for one in octets)
    try:
        mac = bytes.fromhex("".join(octets))
    except ValueError:
        mac = b""
    if not is_right or len(mac) != 6:
        raise CniError("newconf types: malformatted mac address specified", INVALID_CONFIG)
    return mac.hex(":")


def add(call: Call) -> Result:
    """Move the NIC in, and give it what it is told to have."""
    eni = read_eni(call.config)
    with open_host() as host, open_container(call) as container:
        assert container is not None  # noqa: S101 - of ADD it is there
        ifname = _bring(call, host, container, eni)
        try:
            link = get_link(container.link, ifname)
            routes = () if eni.stays_down else _furnish(call, container, link, eni)
            return _result(call, get_link(container.link, ifname), eni, routes)
        except BaseException:
            with turn(TURN):
                _undo(call, host, container)
            raise


def delete(call: Call) -> None:
    """Give the NIC back as it was."""
    eni = read_eni(call.config)
    with open_host() as host, open_container(call) as container, turn(TURN):
        give_back(call.journal, host, container, _mark(call))
        if container is not None:
            give_back_unmarked(call.journal, host, container, eni.mac)
            _unblock(container)


def check(call: Call) -> None:
    """See that the container has the NIC with all that ADD gave it."""
    eni = read_eni(call.config)
    with open_container(call) as container:
        assert container is not None  # noqa: S101 - of CHECK it is there
        previous = call.previous()
        ifname = call.ifname
        if eni.stays_down and previous.interfaces:
            ifname = previous.interfaces[0].name
        link = check_interface(container, ifname, previous)
        if eni.mtu and not eni.stays_down and link.mtu != eni.mtu:
            raise CniError(f"interface {ifname} has MTU {link.mtu}, not {eni.mtu}")


def collect(call: Call) -> None:
    """Give back the NICs of attachments that aren't there any more."""
    kept = {render_mark(NAME, call.network, *one) for one in call.attachments()}
    prefix = network_prefix(NAME, call.network)
    faults: list[str] = []
    with open_host() as host, turn(TURN):
        for mark in list_marks(host, prefix) - kept:
            give_back(call.journal, host, None, mark)
        for path in list_named():
            try:
                with open_place(path) as place:
                    for mark in list_marks(place, prefix) - kept:
                        give_back(call.journal, host, place, mark)
            except (NetlinkError, OSError) as error:
                faults.append(f"{path}: {error}")
    if faults:
        raise CniError("; ".join(faults))


def tell_status(call: Call) -> None:
    """See that the NIC can be taken."""
    eni = read_eni(call.config)
    with open_host() as host:
        try:
            refuse_used(host, _get_nic(host, eni.mac))
        except CniError as error:
            raise CniError(f"{NAME}: {error}", NOT_AVAILABLE) from error


def _require(value: object, name: str) -> None:
    if not value:
        text = f"newconf types: missing required parameter in config: '{name}'"
        raise CniError(text, INVALID_CONFIG)


def _mark(call: Call) -> str:
    return render_mark(NAME, call.network, call.container_id, call.ifname)


def _get_nic(host: Place, mac: str) -> LinkState:
    nic = find_nic(host, mac)
    if nic is None:
        raise CniError(f"unable to find the device with mac address {mac}")
    return nic


def _bring(call: Call, host: Place, container: Place, eni: EniConfig) -> str:
    """Move the NIC into the container; return its name there."""
    with turn(TURN):
        if find_taken(container, _mark(call)):
            raise CniError(f"{call.container_id} has a device for {call.ifname} already")
        nic = _get_nic(host, eni.mac)
        refuse_used(host, nic)
        ifname = nic.name if eni.stays_down else call.ifname
        if find_link(container.link, ifname) is not None:
            raise CniError(f"interface {ifname} is in the container already")
        try:
            take(host, container, nic, _mark(call), ifname)
        except BaseException:
            _undo(call, host, container)
            raise
        return ifname


def _furnish(call: Call, container: Place, link: LinkState, eni: EniConfig) -> tuple[Route, ...]:
    """Give a NIC what it is told to have; return the routes that are new."""
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


def _result(call: Call, link: LinkState, eni: EniConfig, routes: tuple[Route, ...]) -> Result:
    gateways = {one.version: one for one in reversed(eni.gateways)}
    ips = (
        ()
        if eni.stays_down
        else tuple(Ip(one, gateways.get(one.version), 0) for one in eni.addresses)
    )
    return Result((Interface(link.name, link.mac, call.netns, link.mtu),), ips, routes)


def _undo(call: Call, host: Place, container: Place) -> None:
    """Take back what a failed ADD did; whatever can't be taken back, DEL takes back."""
    try:
        give_back(call.journal, host, container, _mark(call))
        _unblock(container)
    except (NetlinkError, OSError) as error:
        call.journal.warn(f"could not take back: {error}")


def _unblock(container: Place) -> None:
    """Remove what keeps a container from instance metadata, if it has no interface any more."""
    if any(one.name != "lo" for one in list_links(container.link)):
        return
    for blackhole in BLACKHOLES:
        with suppress(NetlinkError):  # there may be no such version of IP
            for route in list_routes(container.link, blackhole.to.version):
                if (route.to, route.kind) == (blackhole.to, blackhole.kind):
                    request = Request("remove blackhole", render_no_route(route), _NO_ROUTE)
                    require_each(container.link, [request])


PLUGIN = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
    capabilities=("awsvpc-network-mode",),
)
