"""vpc-branch-eni against the kernel, and what it has a virtual machine hang on.

Where the kernel has no VLANs, one end of a pair stands for the VLAN.
"""

import fcntl
import json
import os
import select
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.cniplugins import branch_links, vpc_branch_eni
from fargate_agent.cniplugins.branch_links import (
    WantedTap,
    bring_up,
    connect_macvtap,
    connect_tap,
    list_marked,
    remove_marked,
)
from fargate_agent.cniplugins.call import Call, read_call
from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.journal import Journal
from fargate_agent.cniplugins.results import Interface, render_result
from fargate_agent.cniplugins.sandboxes import Place, open_place
from fargate_agent.network.blocking import NetlinkError, Request, ask, require_each
from fargate_agent.network.link_requests import LinkState, get_link, render_veth
from fargate_agent.network.namespaces import inside
from fargate_agent.network.rtnetlink import UP, render_link
from tests.fixtures.cni_programs import (
    IFNAME,
    Containers,
    Nic,
    Runtime,
    read_addresses,
    read_link,
    read_routes,
)
from tests.fixtures.network import has_vlans, read_ip, run_ip

pytestmark = pytest.mark.root

MAC: Final = "0a:00:00:00:00:77"
MARK: Final = "fargate-cni:vpc-branch-eni:vpc:one:eth0"
OTHER: Final = bytes.fromhex("0a0000000088")
ETHERTYPE: Final = 0x88B5
"""For experiments. Source: IEEE 802."""
ARRIVES_WITHIN_S: Final = 10
SEND_AGAIN_S: Final = 0.05
FREE_ID: Final = 4_000_000_001


@pytest.fixture
def branch(tmp_path: Path, nic: Nic) -> Runtime:
    return Runtime(
        tmp_path,
        {
            "cniVersion": "1.1.0",
            "name": "vpc",
            "type": "vpc-branch-eni",
            "trunkName": nic.name,
            "trunkMACAddress": nic.mac,
            "branchVlanID": "101",
            "branchMACAddress": MAC,
            "ipAddresses": ["10.213.1.5/24", "2001:db8:5::5/64"],
            "gatewayIPAddresses": ["10.213.1.1", "2001:db8:5::1"],
            "blockInstanceMetadata": True,
            "interfaceType": "vlan",
            "uid": "0",
            "gid": "0",
        },
    )


@pytest.fixture
def wire(containers: Containers) -> Iterator[tuple[Path, socket.socket]]:
    """A container with an interface that stands for a VLAN, and what sends to it."""
    netns, peer = containers.make(), containers.make()
    run_ip("link", "add", "vlan0", "type", "veth", "peer", "name", "cable", netns=netns)
    run_ip("link", "set", "vlan0", "alias", MARK, netns=netns)
    run_ip("link", "set", "cable", "netns", str(peer), netns=netns)
    run_ip("link", "set", "cable", "up", netns=peer)
    with inside(peer):
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    with closing(sender):
        sender.bind(("cable", ETHERTYPE))
        sender.settimeout(ARRIVES_WITHIN_S)
        yield netns, sender


def frame(to: bytes, source: bytes) -> bytes:
    return to + source + struct.pack("!H", ETHERTYPE) + b"payload".ljust(46, b".")


def arrives(sent: bytes, send: Callable[[bytes], int], at: int) -> bool:
    """Send a frame again and again until it arrives: a bridge passes none before it is ready."""
    deadline_s = time.monotonic() + ARRIVES_WITHIN_S
    while time.monotonic() < deadline_s:
        send(sent)
        while select.select([at], [], [], SEND_AGAIN_S)[0]:
            if os.read(at, 2000) == sent:
                return True
    return False


def open_tap(netns: Path, name: str) -> int:
    """Open a TAP as a virtual machine does: IFF_TAP and IFF_NO_PI, with TUNSETIFF."""
    with inside(netns):
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
    return tap


def test_a_virtual_machine_sends_and_gets_by_its_tap(wire: tuple[Path, socket.socket]) -> None:
    netns, other = wire
    mac = bytes.fromhex(MAC.replace(":", ""))
    with open_place(str(netns)) as place:
        link = get_link(place.link, "vlan0")
        made = connect_tap(place, link, MARK, WantedTap(IFNAME, MAC, FREE_ID, 5, "tapbr101"))
        bring_up(place, link)
        assert (made.mac, made.mtu, made.is_up, made.kind) == (MAC, 9001, True, "tun")
    tap = open_tap(netns, IFNAME)
    try:
        assert arrives(frame(mac, OTHER), other.send, tap)
        assert arrives(frame(OTHER, mac), partial(os.write, tap), other.fileno())
        assert arrives(frame(mac, OTHER), other.send, tap)
    finally:
        os.close(tap)

    link_of_tap = read_link(IFNAME, netns)
    assert link_of_tap is not None
    assert str(link_of_tap["linkinfo"]["info_data"]["user"]) == str(FREE_ID)
    with open_place(str(netns)) as place:
        assert {one.name for one in list_marked(place, MARK)} == {"vlan0", "tapbr101", IFNAME}
        remove_marked(place, MARK)
        remove_marked(place, MARK)
    assert [one["ifname"] for one in read_ip("link", netns=netns)] == ["lo"]


def test_a_macvtap_has_the_mac_of_its_branch(wire: tuple[Path, socket.socket]) -> None:
    netns, _ = wire
    run_ip("link", "set", "vlan0", "address", MAC, netns=netns)
    with open_place(str(netns)) as place:
        link = get_link(place.link, "vlan0")
        made = connect_macvtap(place, link, MARK, IFNAME)
        bring_up(place, made)
        bring_up(place, link)
    shown = read_link(IFNAME, netns)
    assert shown is not None
    assert (made.mac, made.kind, shown["linkinfo"]["info_data"]["mode"]) == (
        MAC,
        "macvtap",
        "passthru",
    )
    with open_place(str(netns)) as place:
        remove_marked(place, MARK)
    assert [one["ifname"] for one in read_ip("link", netns=netns)] == ["lo"]


def test_what_a_killed_call_left_is_known_by_its_name(containers: Containers) -> None:
    netns = containers.make()
    with open_place(str(netns)) as place:
        for name in ("tapbr101", "friend"):
            run_ip("link", "add", name, "type", "bridge", netns=netns)
        run_ip("link", "add", "tmp", "type", "veth", "peer", "name", "tmp2", netns=netns)
        link = get_link(place.link, "tmp")
        with pytest.raises(Exception, match="name bridge tapbr101: File exists"):
            connect_tap(place, link, MARK, WantedTap(IFNAME, MAC, 0, 0, "tapbr101"))
        (left,) = list_marked(place, MARK)
        assert (left.kind, left.alias) == ("bridge", "")
        remove_marked(place, MARK)
        names = {one["ifname"] for one in read_ip("link", netns=netns)}
        assert names == {"lo", "tapbr101", "friend", "tmp", "tmp2"}


def test_a_kernel_without_vlans_is_told(branch: Runtime, nic: Nic, container: Path) -> None:
    if has_vlans():
        pytest.skip("the kernel has VLANs")
    for kind in ("vlan", "tap", "macvtap"):
        told = branch.run("ADD", container, interfaceType=kind).fault
        assert told == (100, "the kernel has no module 8021q for VLANs")
    assert [one["ifname"] for one in read_ip("link", netns=container)] == ["lo"]


def test_deleting_what_is_not_there_succeeds(branch: Runtime, container: Path) -> None:
    for netns in (container, "", "/run/netns/gone"):
        assert branch.run("DEL", netns).status == 0
    assert branch.run("DEL", container, branchVlanID=None).fault == (
        7,
        "missing required parameter branchVlanID",
    )
    valid: dict[str, Any] = {"cni.dev/valid-attachments": []}
    assert branch.run("GC", **valid).status == 0


def test_the_trunk_has_to_be_there(branch: Runtime, nic: Nic, container: Path) -> None:
    by_container: dict[str, Any] = {"branchVlanID": None, "branchMACAddress": None, "uid": None}
    assert branch.run("STATUS", **by_container).status == 0
    name = f"nix{uuid.uuid4().hex[:4]}"
    message = f"unable to find the device named {name}"
    assert branch.run("ADD", container, trunkName=name).fault == (100, message)
    assert branch.run("STATUS", trunkName=name).fault == (50, f"vpc-branch-eni: {message}")
    run_ip("link", "add", IFNAME, "type", "bridge", netns=container)
    told = branch.run("ADD", container).fault
    assert told == (100, "interface eth0 is in the container already")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one end of a pair where a VLAN would be made."""

    def make(
        host: Place, container: Place, trunk: LinkState, vlan_id: int, mark: str, mac: str
    ) -> LinkState:
        draft = branch_links.draft_name(branch_links.VLAN, mark)
        ask(container.link, "make pair", render_veth(draft, "cable", container.descriptor, 1500))
        link = get_link(container.link, draft)
        if mac:
            require_each(container.link, [Request("set MAC", render_link(link.ifindex, mac=mac))])
        up = render_link(get_link(container.link, "cable").ifindex, flags=UP)
        require_each(container.link, [Request("bring up", up)])
        return get_link(container.link, draft)

    monkeypatch.setattr(vpc_branch_eni, "make_branch", make)


def call_for(branch: Runtime, verb: str, netns: Path, **changes: Any) -> Call:
    environment = branch.environment(verb, "one", netns, IFNAME)
    return read_call(
        environment, json.dumps({**branch.config, **changes}).encode(), Journal("vpc-branch-eni")
    )


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("kind", ["vlan", "tap", "macvtap"])
def test_all_that_is_done_with_a_vlan(
    kind: str, branch: Runtime, nic: Nic, container: Path
) -> None:
    run_ip("link", "set", nic.name, "down")
    told = {"interfaceType": kind}
    result = vpc_branch_eni.add(call_for(branch, "ADD", container, **told))

    link = read_link(IFNAME, container)
    trunk = read_link(nic.name)
    assert trunk is not None
    assert link is not None
    assert "UP" in trunk["flags"]
    assert (link["address"], "UP" in link["flags"]) == (MAC, True)
    assert result.interfaces == (Interface(IFNAME, MAC, str(container), link["mtu"]),)
    assert ("169.254.169.254", None) in read_routes(container)
    if kind == "vlan":
        assert read_addresses(container) == {"10.213.1.5/24", "2001:db8:5::5/64"}
        gateways = {str(one.address): str(one.gateway) for one in result.ips}
        assert gateways == {"10.213.1.5/24": "10.213.1.1", "2001:db8:5::5/64": "2001:db8:5::1"}
        assert ("default", "2001:db8:5::1") in read_routes(container)
    check = call_for(branch, "CHECK", container, prevResult=render_result(result, "1.1.0"))
    with pytest.raises(CniError, match="interface eth0 is no vlan"):  # nor is the stand-in
        vpc_branch_eni.check(check)
    if kind != "vlan":
        check = check._replace(config=Fields({**check.config.raw, **told}))
        vpc_branch_eni.check(check)
        run_ip("link", "del", "cable", netns=container)
        with pytest.raises(CniError, match="interface eth0"):
            vpc_branch_eni.check(check)
    for netns in (container, container):
        vpc_branch_eni.delete(call_for(branch, "DEL", netns, **told))
    assert [one["ifname"] for one in read_ip("link", netns=container)] == ["lo"]
    assert not read_routes(container)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("kind", ["vlan", "tap", "macvtap"])
def test_a_failed_add_leaves_nothing(kind: str, branch: Runtime, container: Path) -> None:
    told: dict[str, Any] = {"interfaceType": kind}
    if kind == "vlan":
        told["gatewayIPAddresses"] = ["192.0.2.1"]
    else:
        told["branchMACAddress"] = "01:00:00:00:00:01"  # of a group

    with pytest.raises(NetlinkError):
        vpc_branch_eni.add(call_for(branch, "ADD", container, **told))

    assert [one["ifname"] for one in read_ip("link", netns=container)] == ["lo"]
    assert not read_routes(container)


@pytest.mark.usefixtures("stand_in")
def test_garbage_is_removed_but_what_is_valid(branch: Runtime, containers: Containers) -> None:
    gone = containers.make()
    vpc_branch_eni.add(call_for(branch, "ADD", gone))
    valid: dict[str, Any] = {
        "cni.dev/valid-attachments": [{"containerID": "one", "ifname": IFNAME}]
    }
    assert branch.run("GC", **valid).status == 0
    assert read_link(IFNAME, gone) is not None
    valid["cni.dev/valid-attachments"] = []
    assert branch.run("GC", **valid).status == 0
    assert read_link(IFNAME, gone) is None


@pytest.mark.parametrize("kind", ["vlan", "tap", "macvtap"])
def test_a_container_has_its_vlan(
    kind: str, branch: Runtime, nic: Nic, containers: Containers
) -> None:
    if not has_vlans():
        pytest.skip("the kernel has no module 8021q for VLANs")
    container, other = containers.make(), containers.make()
    result = branch.add(container, interfaceType=kind)

    assert result["interfaces"][0]["name"] == IFNAME
    assert result["interfaces"][0]["mac"] == MAC
    assert result["interfaces"][0]["sandbox"] == str(container)
    if kind == "vlan":
        assert read_addresses(container) == {"10.213.1.5/24", "2001:db8:5::5/64"}
        assert ("default", "10.213.1.1") in read_routes(container)
    assert ("169.254.169.254", None) in read_routes(container)
    assert branch.run("CHECK", container, interfaceType=kind, prevResult=result).status == 0
    told = branch.run("ADD", other, "two", interfaceType=kind).fault
    assert told == (100, f"VLAN 101 of trunk {nic.name} is in use on this machine")
    for netns in (container, container, ""):
        assert branch.run("DEL", netns, interfaceType=kind).status == 0
    assert [one["ifname"] for one in read_ip("link", netns=container)] == ["lo"]
    assert not read_routes(container)
