"""vpc-branch-eni: gives a container a branch ENI, which is a VLAN on a trunk of the host.

Names and fields: amazon-vpc-cni-plugins, plugins/vpc-branch-eni. All that it makes is in the
container's namespace, and goes with that at the latest. Other than there, a failed ADD leaves
nothing, and a VLAN that somebody else has is not taken over.
"""

import errno
import os
from typing import Final, NamedTuple

from fargate_agent.cniplugins.branch_links import make_tap, render_macvtap, render_vlan
from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.checks import check_interface
from fargate_agent.cniplugins.errors import FAILED, INVALID_CONFIG, NOT_AVAILABLE, CniError
from fargate_agent.cniplugins.macs import read_mac
from fargate_agent.cniplugins.marks import network_prefix, render_mark
from fargate_agent.cniplugins.nic_calls import EVERYWHERE
from fargate_agent.cniplugins.nics import find_nic
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
    Place,
    list_named,
    open_container,
    open_host,
    open_place,
    render_blackholes,
)
from fargate_agent.network.blocking import NetlinkError, Request, delete_link, require_each
from fargate_agent.network.link_requests import (
    LinkState,
    WantedRoute,
    find_link,
    get_link,
    list_links,
    render_bridge,
    render_global_address,
    render_route,
)
from fargate_agent.network.rtnetlink import UP, render_link

NAME: Final = "vpc-branch-eni"
TAP, VLAN, MACVTAP = "tap", "vlan", "macvtap"
MTU: Final = 9001
"""Source: the original, `const.go`."""
MAX_VLAN_ID: Final = 4094
_MAX_ID: Final = 2**32 - 2


class BranchConfig(NamedTuple):
    """What a configuration asks for."""

    trunk_name: str
    trunk_mac: str
    """One of both is empty."""
    vlan_id: int
    mac: str
    addresses: tuple[AddressWithRange, ...]
    gateways: tuple[Address, ...]
    blocks_imds: bool
    kind: str
    """One of `TAP`, `VLAN` and `MACVTAP`."""
    uid: int
    gid: int
    """Who may open the TAP."""

    @property
    def branch(self) -> str:
        """Return the name of the VLAN where the container's interface hangs on it."""
        return f"vlan{self.vlan_id}"

    @property
    def bridge(self) -> str:
        """Return the name of the bridge between VLAN and TAP."""
        return f"tapbr{self.vlan_id}"


def read_branch(call: Call) -> BranchConfig:
    """Read the configuration; CNI_ARGS say it where they have the same.

    Raises:
        CniError: it isn't right.
    """
    config = call.config
    trunk_name, trunk_mac = config.text("trunkName"), config.text("trunkMACAddress")
    if not trunk_name and not trunk_mac:
        raise _missing("trunkName or trunkMACAddress")
    vlan = call.args.get("BranchVlanID") or config.text("branchVlanID")
    if not vlan:
        raise _missing("branchVlanID")
    if not (vlan.isascii() and vlan.isdigit() and 1 <= int(vlan) <= MAX_VLAN_ID):
        raise CniError(f"invalid branchVlanID {vlan}", INVALID_CONFIG)
    mac = call.args.get("BranchMACAddress") or config.text("branchMACAddress")
    if not mac:
        raise _missing("branchMACAddress")
    kind = config.text("interfaceType") or TAP
    if kind not in {TAP, VLAN, MACVTAP}:
        raise CniError(f"invalid interfaceType {kind}", INVALID_CONFIG)
    return BranchConfig(
        trunk_name=trunk_name,
        trunk_mac=read_mac(trunk_mac, "trunkMACAddress") if trunk_mac else "",
        vlan_id=int(vlan),
        mac=read_mac(mac, "branchMACAddress"),
        addresses=tuple(
            parse_address_with_range(one, "ipAddresses")
            for one in _texts(call, "IPAddresses", "ipAddresses")
        ),
        gateways=tuple(
            parse_address(one, "gatewayIPAddresses")
            for one in _texts(call, "GatewayIPAddresses", "gatewayIPAddresses")
        ),
        blocks_imds=config.flag("blockInstanceMetadata"),
        kind=kind,
        uid=_read_id(call, "uid", is_needed=kind == TAP),
        gid=_read_id(call, "gid", is_needed=kind == TAP),
    )


def add(call: Call) -> Result:
    """Make the VLAN in the container, and what it is taken by."""
    branch = read_branch(call)
    with open_host() as host, open_container(call) as container:
        assert container is not None  # noqa: S101 - of ADD it is there
        for name in _names(call, branch):
            if find_link(container.link, name) is not None:
                raise CniError(f"interface {name} is in the container already", FAILED)
        try:
            _bring(call, host, container, branch)
            routes = _furnish(call, container, branch)
            link = get_link(container.link, call.ifname)
        except BaseException:
            _remove(container, _names(call, branch))
            raise
    interface = Interface(link.name, link.mac, call.netns, link.mtu)
    if branch.kind != VLAN:
        return Result(interfaces=(interface,))
    gateways = {one.version: one for one in reversed(branch.gateways)}
    ips = tuple(Ip(one, gateways.get(one.version), 0) for one in branch.addresses)
    return Result((interface,), ips, routes)


def delete(call: Call) -> None:
    """Remove what ADD has made in the container."""
    branch = read_branch(call)
    with open_container(call) as container:
        if container is not None:
            _remove(container, _names(call, branch))


def check(call: Call) -> None:
    """See that the container has its interface."""
    branch = read_branch(call)
    with open_container(call) as container:
        assert container is not None  # noqa: S101 - of CHECK it is there
        check_interface(container, call.ifname, call.previous())
        for name in _names(call, branch):
            if find_link(container.link, name) is None:
                raise CniError(f"interface {name} is missing in the container", FAILED)


def collect(call: Call) -> None:
    """Remove interfaces of attachments that aren't there any more, where a namespace still is."""
    kept = {render_mark(NAME, call.network, *one) for one in call.attachments()}
    prefix = network_prefix(NAME, call.network)
    faults: list[str] = []
    for path in list_named():
        try:
            with open_place(path) as place:
                for link in list_links(place.link):
                    if link.alias.startswith(prefix) and link.alias not in kept:
                        delete_link(place.path, link.ifindex)
        except (NetlinkError, OSError) as error:
            faults.append(f"{path}: {error}")
    if faults:
        raise CniError("; ".join(faults), FAILED)


def tell_status(call: Call) -> None:
    """See that the trunk is there."""
    branch = read_branch(call)
    with open_host() as host:
        try:
            _find_trunk(host, branch)
        except CniError as error:
            raise CniError(f"{NAME}: {error}", NOT_AVAILABLE) from error


def _bring(call: Call, host: Place, container: Place, branch: BranchConfig) -> None:
    """Make the VLAN, marked; the trunk is up then."""
    trunk = _find_trunk(host, branch)
    require_each(
        host.link, [Request(f"bring {trunk.name} up", render_link(trunk.ifindex, flags=UP))]
    )
    name = call.ifname if branch.kind == VLAN else branch.branch
    make = render_vlan(trunk.ifindex, branch.vlan_id, container.descriptor, name, branch.mac)
    try:
        require_each(host.link, [Request(f"make VLAN {branch.vlan_id} of {trunk.name}", make)])
    except NetlinkError as error:
        if error.code == errno.EOPNOTSUPP:
            text = "the kernel has no VLANs: load its module 8021q"
            raise CniError(text, FAILED) from error
        if error.code == errno.EEXIST:
            text = f"VLAN {branch.vlan_id} of {trunk.name} is in use on this machine"
            raise CniError(text, FAILED) from error
        raise
    _mark(call, container, name)


def _furnish(call: Call, container: Place, branch: BranchConfig) -> tuple[Route, ...]:
    """Have the container's interface lead to the VLAN; return its routes."""
    requests = render_blackholes() if branch.blocks_imds else []
    if branch.kind == VLAN:
        index = get_link(container.link, call.ifname).ifindex
        requests += [
            Request(f"add address {one}", render_global_address(index, one))
            for one in branch.addresses
        ]
        requests.append(Request(f"bring {call.ifname} up", render_link(index, flags=UP)))
        routes = tuple(Route(EVERYWHERE[one.version], one) for one in branch.gateways)
        requests += [
            Request(
                f"route by {one.gateway}", render_route(WantedRoute(one.to, index, one.gateway))
            )
            for one in routes
        ]
        require_each(container.link, requests)
        return routes
    if branch.kind == TAP:
        join_tap(container, branch, call.ifname)
    else:
        vlan = get_link(container.link, branch.branch)
        make = render_macvtap(vlan.ifindex, call.ifname, branch.mac)
        require_each(container.link, [Request(f"make macvtap {call.ifname}", make)])
    _mark(call, container, call.ifname)
    for name in (call.ifname, branch.branch):
        up = render_link(get_link(container.link, name).ifindex, flags=UP)
        requests.append(Request(f"bring {name} up", up))
    require_each(container.link, requests)
    return ()


def join_tap(container: Place, branch: BranchConfig, ifname: str) -> None:
    """Make a TAP, and a bridge between it and the VLAN, whose MAC is the bridge's then.

    Raises:
        NetlinkError, OSError: the kernel refused.
    """
    mac = bytes([0x02, *os.urandom(5)]).hex(":")
    what = f"make bridge {branch.bridge}"
    require_each(container.link, [Request(what, render_bridge(branch.bridge, mac, MTU))])
    bridge = get_link(container.link, branch.bridge).ifindex
    make_tap(container.path, ifname, branch.uid, branch.gid)
    vlan, tap = get_link(container.link, branch.branch), get_link(container.link, ifname)
    require_each(
        container.link,
        [
            Request(what, render_link(vlan.ifindex, mac=mac, master=bridge)),
            Request(what, render_link(tap.ifindex, mac=branch.mac, mtu=MTU, master=bridge)),
            Request(what, render_link(bridge, flags=UP)),
        ],
    )


def _mark(call: Call, container: Place, name: str) -> None:
    mark = render_mark(NAME, call.network, call.container_id, call.ifname)
    index = get_link(container.link, name).ifindex
    require_each(container.link, [Request(f"mark {name}", render_link(index, alias=mark))])


def _remove(container: Place, names: tuple[str, ...]) -> None:
    for name in names:
        link = find_link(container.link, name)
        if link is not None and link.kind in {"vlan", "tun", "macvtap", "bridge"}:
            delete_link(container.path, link.ifindex)


def _names(call: Call, branch: BranchConfig) -> tuple[str, ...]:
    """Return the names of all that is made, the container's own interface first."""
    more = {VLAN: (), TAP: (branch.bridge, branch.branch), MACVTAP: (branch.branch,)}
    return call.ifname, *more[branch.kind]


def _find_trunk(host: Place, branch: BranchConfig) -> LinkState:
    if branch.trunk_name:
        trunk = find_link(host.link, branch.trunk_name)
    else:
        trunk = find_nic(host, branch.trunk_mac)
    if trunk is None:
        raise CniError(f"failed to find trunk {branch.trunk_name or branch.trunk_mac}", FAILED)
    return trunk


def _texts(call: Call, arg: str, field: str) -> list[str]:
    given = call.args.get(arg)
    return given.split(",") if given else call.config.texts(field)


def _read_id(call: Call, name: str, *, is_needed: bool) -> int:
    text = call.config.text(name)
    if not text:
        if is_needed:
            raise _missing(name)
        return 0
    if not (text.isascii() and text.isdigit() and int(text) <= _MAX_ID):
        raise CniError(f"invalid {name} {text}", INVALID_CONFIG)
    return int(text)


def _missing(name: str) -> CniError:
    return CniError(f"missing required parameter {name}", INVALID_CONFIG)


PLUGIN: Final = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
    capabilities=("awsvpc-network-mode",),
    log_file_variable="VPC_CNI_LOG_FILE",
    log_level_variable="VPC_CNI_LOG_LEVEL",
)
