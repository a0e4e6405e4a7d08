"""vpc-branch-eni: gives a container, or a virtual machine in it, a VLAN of a trunk.

Names and messages: amazon-vpc-cni-plugins, plugins/vpc-branch-eni. Other than there, a failed ADD
leaves nothing in the container, and a VLAN that is in use elsewhere is refused.
"""

from typing import Final

from fargate_agent.cniplugins.branch_config import BranchConfig, read_branch, read_trunk
from fargate_agent.cniplugins.branch_links import (
    MACVTAP,
    TAP,
    VLAN,
    WantedTap,
    bring_up,
    connect_macvtap,
    connect_tap,
    list_marked,
    make_branch,
    remove_all_but,
    remove_marked,
    settle,
)
from fargate_agent.cniplugins.call import MAX_IFNAME_CHARS, Call
from fargate_agent.cniplugins.checks import check_interface
from fargate_agent.cniplugins.enis import EniConfig, describe, furnish, get_nic, unblock
from fargate_agent.cniplugins.errors import NOT_AVAILABLE, CniError
from fargate_agent.cniplugins.marks import network_prefix, render_mark
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.results import Interface, Result
from fargate_agent.cniplugins.sandboxes import (
    Place,
    open_container,
    open_host,
    render_blackholes,
)
from fargate_agent.network.blocking import NetlinkError, require_each
from fargate_agent.network.link_requests import LinkState, find_link, get_link

NAME: Final = "vpc-branch-eni"
LOG_FILE, LOG_LEVEL = "VPC_CNI_LOG_FILE", "VPC_CNI_LOG_LEVEL"
_KINDS: Final = {VLAN: "vlan", TAP: "tun", MACVTAP: "macvtap"}
"""As the kernel names what a container has."""
_COUNTS: Final = {VLAN: 1, MACVTAP: 2, TAP: 3}
"""How many interfaces that takes: the VLAN, what hangs on it, and the bridge between."""


def add(call: Call) -> Result:
    """Give the container its VLAN."""
    told = read_branch(call.config, call.args)
    with open_host() as host, open_container(call) as container:
        assert container is not None  # noqa: S101 - of ADD it is there
        if list_marked(container, _mark(call)):
            raise CniError(f"{call.container_id} has a device for {call.ifname} already")
        if find_link(container.link, call.ifname) is not None:
            raise CniError(f"interface {call.ifname} is in the container already")
        trunk = get_nic(host, told.trunk.name, told.trunk.mac)
        try:
            if not trunk.is_up:
                bring_up(host, trunk)
            return _attach(call, host, container, trunk, told)
        except BaseException:
            _undo(call, container)
            raise


def delete(call: Call) -> None:
    """Remove what the container has of the VLAN."""
    read_branch(call.config, call.args)
    with open_container(call) as container:
        if container is not None:
            _take_back(container, _mark(call))


def check(call: Call) -> None:
    """See that the container has all that ADD gave it."""
    told = read_branch(call.config, call.args)
    previous = call.previous()
    with open_container(call) as container:
        assert container is not None  # noqa: S101 - of CHECK it is there
        link = check_interface(container, call.ifname, previous)
        if link.kind != _KINDS[told.kind]:
            raise CniError(f"interface {call.ifname} is no {told.kind}")
        if len(list_marked(container, _mark(call))) != _COUNTS[told.kind]:
            raise CniError(f"the container hasn't all that interface {call.ifname} hangs on")


def collect(call: Call) -> None:
    """Remove the interfaces of attachments that aren't there any more."""
    kept = {render_mark(NAME, call.network, *one) for one in call.attachments()}
    faults = remove_all_but(network_prefix(NAME, call.network), kept)
    if faults:
        raise CniError("; ".join(faults))


def tell_status(call: Call) -> None:
    """See that there is a trunk; the rest of a configuration may come with each container."""
    trunk = read_trunk(call.config)
    with open_host() as host:
        try:
            get_nic(host, trunk.name, trunk.mac)
        except CniError as error:
            raise CniError(f"{NAME}: {error}", NOT_AVAILABLE) from error


def name_branch(trunk: str, vlan_id: int) -> str:
    """Name the VLAN that a virtual machine hangs on; a long trunk's name is left away."""
    name = f"{trunk}.{vlan_id}"
    return name if len(name) <= MAX_IFNAME_CHARS else f"vlan{vlan_id}"


def _attach(
    call: Call, host: Place, container: Place, trunk: LinkState, told: BranchConfig
) -> Result:
    mark = _mark(call)
    mac = "" if told.kind == TAP else told.mac
    branch = make_branch(host, container, trunk, told.vlan_id, mark, mac)
    if told.kind == VLAN:
        branch = settle(container, branch, call.ifname, mark)
        wanted = EniConfig(
            told.mac,
            told.addresses,
            told.gateways,
            told.blocks_imds,
            stays_down=False,
            mtu=0,
        )
        routes = furnish(call, container, branch, wanted)
        return describe(call, get_link(container.link, call.ifname), wanted, routes)
    branch = settle(container, branch, name_branch(trunk.name, told.vlan_id), mark)
    if told.kind == TAP:
        bridge = f"tapbr{told.vlan_id}"
        tap = WantedTap(call.ifname, told.mac, told.uid, told.gid, bridge)
        made = connect_tap(container, branch, mark, tap)
    else:
        made = connect_macvtap(container, branch, mark, call.ifname)
        bring_up(container, made)
    if told.blocks_imds:
        require_each(container.link, render_blackholes())
    bring_up(container, branch)
    return Result((Interface(made.name, told.mac, call.netns, made.mtu),))


def _undo(call: Call, container: Place) -> None:
    """Take back what a failed ADD did; whatever can't be taken back, DEL takes back."""
    try:
        _take_back(container, _mark(call))
    except (NetlinkError, OSError) as error:
        call.journal.warn(f"could not take back: {error}")


def _take_back(container: Place, mark: str) -> None:
    remove_marked(container, mark)
    unblock(container)


def _mark(call: Call) -> str:
    return render_mark(NAME, call.network, call.container_id, call.ifname)


PLUGIN = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
    capabilities=("awsvpc-network-mode",),
    log_file_variable=LOG_FILE,
    log_level_variable=LOG_LEVEL,
)
