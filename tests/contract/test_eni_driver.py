"""What every `EniDriver` promises: that of each kind is tested."""

import uuid
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from fargate_agent.composition import make_enis
from fargate_agent.drivers import EniDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.findings import Findings
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.nic import NicEni
from fargate_agent.plan import EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.cni import NETWORK, bridge_name, write_network
from tests.fixtures.network import MakeEni, has_vlans, read_ip, remove_link, run_ip
from tests.fixtures.pulls import eventually

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("forwarding_put_back")]


@pytest.fixture(params=EniKind)
async def driver(
    request: pytest.FixtureRequest, netns_driver: KernelNetns, tmp_path: Path, subnet: IPv4Network
) -> AsyncIterator[EniDriver]:
    kind: EniKind = request.param
    if kind is EniKind.VLAN and not has_vlans():
        pytest.skip("the kernel has no 8021q; the journey `eni` of tests.vm has")
    prepared = netns_driver.prepared
    async with (
        HostFirewall(prepared.instance, tmp_path / FILE, FirewallSettings()) as firewall,
        make_enis(
            prepared,
            firewall,
            tmp_path,
            tmp_path / "netns",
            Findings(),
            write_network(tmp_path, subnet),
        )[kind] as driver,
    ):
        yield driver
        await firewall.release()
    remove_link(bridge_name(tmp_path))


@pytest.fixture
def parent() -> Iterator[str]:
    name = f"fgt{uuid.uuid4().hex[:8]}"
    run_ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    run_ip("link", "set", f"{name}p", "up")
    yield name
    run_ip("link", "del", f"{name}p")


@pytest.fixture
async def eni(
    make_eni: MakeEni, parent: str, driver: EniDriver, netns: Path, test_network: IPv4Network
) -> AsyncIterator[EniPlan]:
    """An ENI that any of the drivers can attach; detached when the test ends."""
    (nic,) = read_ip("link", "show", parent)
    is_nic = isinstance(driver, NicEni)
    plan = make_eni(
        parent=parent,
        vlan_id=100,
        cni_network=NETWORK,
        **({"mac": nic["address"]} if is_nic else {}),
    )
    yield plan
    await driver.detach(plan, netns)


def read_network(netns: Path) -> object:
    """What a repeated attach must not change; the kernel itself still changes states."""
    links = read_ip("-4", "address", netns=netns)
    addresses = [(link["ifindex"], link.get("address"), link["addr_info"]) for link in links]
    return addresses, read_ip("route", netns=netns)


async def test_attach_returns_with_the_interface_up_and_the_default_route(
    driver: EniDriver, eni: EniPlan, netns: Path
) -> None:
    await driver.attach(eni, netns)

    (link,) = read_ip("link", "show", "eth1", netns=netns)
    (route,) = read_ip("route", "show", "default", netns=netns)
    assert "UP" in link["flags"]
    assert link["address"] == eni.mac
    assert (route["gateway"], route["dev"]) == (str(eni.gateway), "eth1")


async def test_attach_may_be_repeated_and_changes_nothing(
    driver: EniDriver, eni: EniPlan, netns: Path
) -> None:
    await driver.attach(eni, netns)
    before = read_network(netns)

    await driver.attach(eni, netns)

    assert read_network(netns) == before


async def test_detach_may_be_repeated(driver: EniDriver, eni: EniPlan, netns: Path) -> None:
    await driver.attach(eni, netns)

    await driver.detach(eni, netns)
    await driver.detach(eni, netns)

    await eventually(lambda: "eth1" not in run_ip("link", netns=netns))


async def test_detach_of_what_was_never_attached_succeeds(
    driver: EniDriver, eni: EniPlan, netns: Path
) -> None:
    await driver.detach(eni, netns)


async def test_detach_succeeds_when_the_network_namespace_is_gone(
    driver: EniDriver, eni: EniPlan, netns: Path
) -> None:
    await driver.detach(eni, netns.with_name("fargate-gone"))


async def test_attach_after_detach_makes_another(
    driver: EniDriver, eni: EniPlan, netns: Path
) -> None:
    await driver.attach(eni, netns)
    await driver.detach(eni, netns)

    await driver.attach(eni, netns)

    assert read_ip("link", "show", "eth1", netns=netns)


async def test_confirm_returns_when_nobody_has_the_address(
    driver: EniDriver, eni: EniPlan, netns: Path
) -> None:
    await driver.attach(eni, netns)

    await driver.confirm(eni, netns)
    await driver.confirm(eni, netns)


async def test_attach_to_a_namespace_that_is_not_there_names_the_eni(
    driver: EniDriver, eni: EniPlan, netns: Path
) -> None:
    absent = netns.with_name("fargate-gone")

    with pytest.raises(ResourceInitializationError) as refusal:
        await driver.attach(eni, absent)

    assert refusal.value.reason == (
        f"ResourceInitializationError: ENI {eni.id}: open network namespace: "
        "No such file or directory"
    )


async def test_an_interface_of_that_name_that_is_not_the_enis_is_left_alone(
    driver: EniDriver, eni: EniPlan, netns: Path, netns_driver: KernelNetns
) -> None:
    await netns_driver.prepared.discard(netns)
    run_ip("link", "add", "eth1", "type", "bridge", netns=netns)
    before = run_ip("link", "show", "eth1", netns=netns)

    with pytest.raises(ResourceInitializationError, match=eni.id):
        await driver.attach(eni, netns)
    await driver.detach(eni, netns)

    assert run_ip("link", "show", "eth1", netns=netns) == before
    assert [link["ifname"] for link in read_ip("link", netns=netns)] == ["lo", "eth0", "eth1"]
