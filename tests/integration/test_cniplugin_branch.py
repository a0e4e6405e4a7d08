"""vpc-branch-eni, as far as this kernel can: what virtual machines take a VLAN by, refusals."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.cniplugins.sandboxes import open_place
from fargate_agent.cniplugins.vpc_branch_eni import BranchConfig, join_tap
from tests.fixtures.cniplugins import run_plugin
from tests.fixtures.network import MakeNetns, has_vlans, read_ip, run_ip

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "branch",
    "type": "vpc-branch-eni",
    "trunkName": "trunk0",
    "branchVlanID": "42",
    "branchMACAddress": "02:00:00:00:00:42",
    "ipAddresses": ["10.213.9.5/24"],
    "gatewayIPAddresses": ["10.213.9.1"],
    "interfaceType": "vlan",
}


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this machine has no TAP")
async def test_tap_is_on_a_bridge_with_the_vlan_and_belongs_to_its_user(
    make_netns: MakeNetns,
) -> None:
    """A veth stands for the VLAN."""
    netns = await make_netns()
    run_ip("link", "add", "vlan42", "type", "veth", "peer", "name", "far0", netns=netns)
    branch = BranchConfig(
        trunk_name="trunk0",
        trunk_mac="",
        vlan_id=42,
        mac="02:00:00:00:00:42",
        addresses=(),
        gateways=(),
        blocks_imds=False,
        kind="tap",
        uid=1234,
        gid=2345,
    )
    with open_place(str(netns)) as container:
        join_tap(container, branch, "eth9")

    links = {link["ifname"]: link for link in read_ip("link", "show", netns=netns)}
    owner = run_ip("-details", "link", "show", "eth9", netns=netns)
    assert links["eth9"]["master"] == links["vlan42"]["master"] == "tapbr42"
    assert (links["eth9"]["address"], links["eth9"]["mtu"]) == ("02:00:00:00:00:42", 9001)
    assert links["vlan42"]["address"] == links["tapbr42"]["address"]
    assert "persist on user 1234 group 2345" in owner


@pytest.fixture
def trunk() -> Iterator[None]:
    run_ip("link", "add", "trunk0", "type", "veth", "peer", "name", "trunk1")
    yield
    run_ip("link", "del", "trunk0")


def names(netns: Path) -> set[str]:
    return {link["ifname"] for link in read_ip("link", "show", netns=netns)}


@pytest.mark.skipif(has_vlans(), reason="this kernel has VLANs")
async def test_kernel_without_vlans_is_named_and_nothing_is_left(
    make_netns: MakeNetns, trunk: None
) -> None:
    netns = await make_netns()
    before = names(netns)

    answer = run_plugin("vpc-branch-eni", "ADD", CONFIG, netns)

    assert answer.error == "the kernel has no VLANs: load its module 8021q"
    assert names(netns) == before
    for where in (netns, ""):
        assert run_plugin("vpc-branch-eni", "DEL", CONFIG, where).status == 0


@pytest.mark.skipif(not has_vlans(), reason="this kernel has no VLANs")
@pytest.mark.parametrize("kind", ["vlan", "tap", "macvtap"])
async def test_branch_is_made_checked_and_removed(
    make_netns: MakeNetns, trunk: None, kind: str
) -> None:
    netns = await make_netns()
    before = names(netns)
    config = {**CONFIG, "interfaceType": kind, "uid": "0", "gid": "0"}

    added = run_plugin("vpc-branch-eni", "ADD", config, netns)
    assert added.status == 0, added
    checked = run_plugin("vpc-branch-eni", "CHECK", {**config, "prevResult": added.document}, netns)

    (link,) = read_ip("link", "show", "dev", "eth9", netns=netns)
    assert (checked.status, link["address"]) == (0, "02:00:00:00:00:42")
    assert run_plugin("vpc-branch-eni", "ADD", config, netns).status == 1
    for where in (netns, netns, ""):
        assert run_plugin("vpc-branch-eni", "DEL", config, where).status == 0
    assert names(netns) == before


async def test_trunk_that_is_not_there_is_named(make_netns: MakeNetns) -> None:
    netns = await make_netns()
    tell: Callable[..., Any] = run_plugin

    added = tell("vpc-branch-eni", "ADD", CONFIG, netns)
    status = tell("vpc-branch-eni", "STATUS", {**CONFIG, "cniVersion": "1.1.0"})

    assert added.error == "failed to find trunk trunk0"
    assert (status.status, status.document["code"]) == (1, 50)
