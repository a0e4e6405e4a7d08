"""ENIs as children of a NIC; the NIC here is one end of a wire to another machine."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.macvlan import MacvlanEni
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import TMDS_ADDRESS, EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.network import (
    MakeEni,
    MakeNetns,
    OpenFirewall,
    ask_caller,
    is_dropped,
    open_tcp,
    read_ip,
    remove_link,
    run_ip,
    serve_caller,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

IPV6 = IPv6Network("fd00:213::/64")


@pytest.fixture
async def gateway(eni: EniPlan, parent: str, make_netns: MakeNetns) -> Path:
    """The gateway of the ENI's subnet: a machine at the other end of the parent's wire."""
    netns = await make_netns()
    run_ip("link", "set", f"{parent}p", "netns", str(netns))
    for address in (f"{eni.gateway}/{eni.address.network.prefixlen}", f"{IPV6[1]}/64"):
        run_ip("address", "add", address, "dev", f"{parent}p", "nodad", netns=netns)
    run_ip("link", "set", f"{parent}p", "up", netns=netns)
    return netns


@pytest.fixture
async def parent() -> AsyncIterator[str]:
    """A NIC of this host that is down."""
    name = f"fgt{uuid.uuid4().hex[:8]}"
    run_ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    yield name
    remove_link(name)


@pytest.fixture
def eni(make_eni: MakeEni, parent: str) -> EniPlan:
    return make_eni(
        kind=EniKind.MACVLAN,
        parent=parent,
        mtu=1400,
        ipv6_address=IPv6Interface((IPV6[5], 64)),
        ipv6_gateway=IPv6Address(IPV6[1]),
    )


@pytest.fixture
async def driver(netns_driver: KernelNetns) -> AsyncIterator[MacvlanEni]:
    async with MacvlanEni(netns_driver.prepared, OpenFirewall()) as driver:
        yield driver


async def test_the_host_may_have_a_nic_of_the_same_name_as_the_task(
    eni: EniPlan, netns: Path, driver: MacvlanEni, parent: str
) -> None:
    twin = replace(eni, ifname=parent)

    await driver.attach(twin, netns)
    await driver.attach(twin, netns)

    (link,) = read_ip("link", "show", parent, netns=netns)
    assert link["address"] == eni.mac
    await driver.detach(twin, netns)
    assert [one["ifname"] for one in read_ip("link", "show", netns=netns)] == ["lo", "eth0"]


async def test_a_task_is_a_machine_of_its_own_on_the_parents_network(
    eni: EniPlan, netns: Path, driver: MacvlanEni, gateway: Path
) -> None:
    await driver.attach(eni, netns)

    async with serve_caller(gateway, eni.gateway) as port:
        assert await ask_caller(netns, eni.gateway, port) == str(eni.address.ip)
    async with serve_caller(gateway, IPV6[1]) as port:
        assert await ask_caller(netns, IPV6[1], port) == str(IPV6[5])
    (link,) = read_ip("-d", "link", "show", "eth1", netns=netns)
    assert (link["address"], link["mtu"]) == (eni.mac, 1400)
    assert link["linkinfo"]["info_data"]["mode"] == "bridge"


async def test_a_machine_of_the_lan_is_not_passed_on_to_the_metadata_endpoint(
    eni: EniPlan,
    netns: Path,
    driver: MacvlanEni,
    gateway: Path,
    metadata_netns: MetadataNetns,
) -> None:
    await driver.attach(eni, netns)
    route = (f"{TMDS_ADDRESS}/32", "via", str(eni.address.ip))
    run_ip("route", "replace", *route, netns=gateway)
    with metadata_netns.bind(netns) as listener:
        listener.listen()

        assert await is_dropped(gateway, netns, TMDS_ADDRESS, 80)


async def test_a_parent_that_is_down_is_brought_up(
    eni: EniPlan, netns: Path, driver: MacvlanEni, parent: str, gateway: Path
) -> None:
    await driver.attach(eni, netns)

    (link,) = read_ip("link", "show", parent)
    assert "UP" in link["flags"]


async def test_a_parent_that_is_not_there_is_named(
    eni: EniPlan, netns: Path, driver: MacvlanEni, parent: str
) -> None:
    run_ip("link", "set", parent, "name", f"{parent}x")

    with pytest.raises(ResourceInitializationError) as refusal:
        await driver.attach(eni, netns)

    assert refusal.value.reason == (
        f"ResourceInitializationError: ENI {eni.id}: this machine has no interface '{parent}' "
        "for it to hang on"
    )
    run_ip("link", "set", f"{parent}x", "name", parent)


async def test_an_attach_that_was_cut_short_is_completed(
    eni: EniPlan,
    netns: Path,
    driver: MacvlanEni,
    gateway: Path,
    parent: str,
    netns_driver: KernelNetns,
) -> None:
    await netns_driver.prepared.discard(netns)
    run_ip("link", "set", parent, "up")
    command = ["link", "add", "link", parent, "name", "eth1", "netns", str(netns)]
    run_ip(*command, "address", eni.mac, "type", "macvlan", "mode", "bridge")

    await driver.attach(eni, netns)

    async with serve_caller(gateway, eni.gateway) as port:
        assert await ask_caller(netns, eni.gateway, port) == str(eni.address.ip)


async def test_detach_removes_the_interface_though_a_socket_is_open(
    eni: EniPlan, netns: Path, driver: MacvlanEni, gateway: Path
) -> None:
    await driver.attach(eni, netns)
    with open_tcp(netns, eni.address.ip) as listener:
        listener.bind((str(eni.address.ip), 0))

        await driver.detach(eni, netns)

    assert [link["ifname"] for link in read_ip("link", netns=netns)] == ["lo", "eth0"]
