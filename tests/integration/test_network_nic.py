"""ENIs that are NICs of the host; the NIC here is one end of a wire to another machine."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.findings import Findings
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.names import eni_alias
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.nic import NicEni
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.plan import TMDS_ADDRESS, EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.network import (
    MakeEni,
    MakeNetns,
    OpenFirewall,
    ask_caller,
    is_dropped,
    read_ip,
    remove_link,
    run_ip,
    serve_caller,
)
from tests.fixtures.pulls import eventually

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

NOT_THERE_S = 0.05
"""For how long a driver waits for a NIC that never comes."""

MakeNicEni = Callable[..., NicEni]


def plug(nic: str, mac: str) -> None:
    run_ip("link", "add", nic, "address", mac, "type", "veth", "peer", "name", f"{nic}p")


@pytest.fixture
def nic() -> Iterator[str]:
    """The name of a NIC of this host, which isn't there yet."""
    name = f"fgt{uuid.uuid4().hex[:8]}"
    yield name
    remove_link(f"{name}p")


@pytest.fixture
def eni(make_eni: MakeEni, netns: Path) -> EniPlan:
    return make_eni(kind=EniKind.NIC)


@pytest.fixture
async def gateway(make_netns: MakeNetns, eni: EniPlan, nic: str) -> Path:
    """The gateway of the ENI's subnet: a machine at the other end of the NIC's wire."""
    plug(nic, eni.mac)
    netns = await make_netns()
    run_ip("link", "set", f"{nic}p", "netns", str(netns))
    address = f"{eni.gateway}/{eni.address.network.prefixlen}"
    run_ip("address", "add", address, "dev", f"{nic}p", netns=netns)
    run_ip("link", "set", f"{nic}p", "up", netns=netns)
    return netns


@pytest.fixture
def findings() -> Findings:
    return Findings()


@pytest.fixture
def make_driver(netns_driver: KernelNetns, findings: Findings, netns: Path) -> MakeNicEni:
    """Make a driver as an agent does that starts."""

    def make(wait_s: float = 30.0) -> NicEni:
        prepared = netns_driver.prepared
        return NicEni(prepared, OpenFirewall(), netns.parent, findings, wait_s)

    return make


@pytest.fixture
async def driver(make_driver: MakeNicEni) -> AsyncIterator[NicEni]:
    async with make_driver() as driver:
        yield driver


def describe(nic: str) -> tuple[str, str, int, str]:
    """What a NIC of the host must be again when it is given back."""
    (link,) = read_ip("link", "show", nic)
    return link["ifname"], link["address"], link["mtu"], link.get("ifalias", "")


def names(netns: Path) -> list[str]:
    return [link["ifname"] for link in read_ip("link", netns=netns)]


async def test_a_task_has_the_nic_for_itself_and_gives_it_back_as_it_was(
    eni: EniPlan, netns: Path, driver: NicEni, nic: str, gateway: Path
) -> None:
    run_ip("link", "set", nic, "mtu", "1300", "alias", "rack 3: left")
    before = describe(nic)

    await driver.attach(eni, netns)

    async with serve_caller(gateway, eni.gateway) as port:
        assert await ask_caller(netns, eni.gateway, port) == str(eni.address.ip)
    assert nic not in run_ip("link")
    (link,) = read_ip("link", "show", "eth1", netns=netns)
    assert (link["address"], link["mtu"]) == (eni.mac, 1300)
    await driver.detach(eni, netns)
    assert describe(nic) == before
    assert names(netns) == ["lo", "eth0"]


async def test_the_tasks_mtu_is_that_of_the_eni_only_for_the_task(
    make_eni: MakeEni, netns: Path, driver: NicEni, nic: str
) -> None:
    eni = make_eni(kind=EniKind.NIC, mtu=9001)
    plug(nic, eni.mac)

    await driver.attach(eni, netns)

    assert read_ip("link", "show", "eth1", netns=netns)[0]["mtu"] == 9001
    await driver.detach(eni, netns)
    assert describe(nic)[2] == 1500


async def test_a_nic_may_be_plugged_in_after_its_task_was_wanted(
    eni: EniPlan, netns: Path, driver: NicEni, nic: str
) -> None:
    attaching = asyncio.create_task(driver.attach(eni, netns))
    for number in range(3):  # others come and go
        other = f"{nic}{number}"
        plug(other, f"02:00:00:00:00:{number:02x}")
        remove_link(other)
    await eventually(lambda: "eth1" not in names(netns))  # the prepared one makes place
    assert not attaching.done()

    plug(nic, eni.mac)
    await attaching

    assert read_ip("link", "show", "eth1", netns=netns)[0]["address"] == eni.mac
    await driver.detach(eni, netns)


async def test_a_nic_that_does_not_come_is_named_by_its_mac(
    eni: EniPlan, netns: Path, make_driver: MakeNicEni
) -> None:
    async with make_driver(NOT_THERE_S) as driver:
        with pytest.raises(ResourceInitializationError) as refusal:
            await driver.attach(eni, netns)

    assert refusal.value.reason == (
        f"ResourceInitializationError: ENI {eni.id}: unable to find the ENI: this machine has had "
        f"no interface with MAC address {eni.mac} for 0.05 s"
    )


async def test_of_two_tasks_that_want_one_nic_the_second_waits_and_gets_it_next(
    make_eni: MakeEni, make_netns: MakeNetns, make_driver: MakeNicEni, nic: str
) -> None:
    one = make_eni(kind=EniKind.NIC)
    other = make_eni(kind=EniKind.NIC, mac=one.mac)
    first, second = await make_netns(), await make_netns()
    plug(nic, one.mac)
    async with make_driver() as driver:
        attaching = [
            asyncio.create_task(driver.attach(eni, netns))
            for eni, netns in ((one, first), (other, second))
        ]
        done, waiting = await asyncio.wait(attaching, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == len(waiting) == 1
        has_it = (one, first) if attaching[0] in done else (other, second)
        gets_it = (other, second) if attaching[0] in done else (one, first)

        await driver.detach(*has_it)
        await waiting.pop()

        assert "eth1" in names(gets_it[1])
        assert "eth1" not in names(has_it[1])
        await driver.detach(*gets_it)
    assert describe(nic)[0] == nic


async def test_who_has_the_nic_is_said_when_another_task_wants_it_in_vain(
    make_eni: MakeEni, make_netns: MakeNetns, make_driver: MakeNicEni, nic: str
) -> None:
    one = make_eni(kind=EniKind.NIC)
    other = make_eni(kind=EniKind.NIC, mac=one.mac)
    netns = await make_netns()
    plug(nic, one.mac)
    async with make_driver(NOT_THERE_S) as driver:
        await driver.attach(one, netns)
        with pytest.raises(ResourceInitializationError, match=f"{one.id} of this machine has it"):
            await driver.attach(other, await make_netns())
        await driver.detach(one, netns)


@pytest.mark.parametrize("stage", ["marked", "moved", "named"])
async def test_an_attach_that_was_cut_short_is_completed_by_the_next_agent(
    eni: EniPlan,
    netns: Path,
    make_driver: MakeNicEni,
    nic: str,
    stage: str,
    netns_driver: KernelNetns,
) -> None:
    plug(nic, eni.mac)
    before = describe(nic)
    await netns_driver.prepared.discard(netns)
    cut_short(eni, netns, nic, stage, netns_driver.prepared)

    async with make_driver() as successor:
        await successor.attach(eni, netns)
        assert read_ip("link", "show", "eth1", netns=netns)[0]["address"] == eni.mac
        await successor.detach(eni, netns)

    assert describe(nic) == before


@pytest.mark.parametrize("stage", ["marked", "moved", "named"])
async def test_a_nic_of_an_agent_that_was_killed_is_given_back_by_the_next_ones_sweep(
    eni: EniPlan,
    netns: Path,
    make_driver: MakeNicEni,
    nic: str,
    stage: str,
    netns_driver: KernelNetns,
) -> None:
    plug(nic, eni.mac)
    before = describe(nic)
    await netns_driver.prepared.discard(netns)
    cut_short(eni, netns, nic, stage, netns_driver.prepared)

    async with make_driver() as successor:
        assert await successor.sweep(()) == [nic]
        assert await successor.sweep(()) == []

    assert describe(nic) == before


async def test_a_task_that_is_kept_keeps_its_nic(
    eni: EniPlan, netns: Path, driver: NicEni, make_driver: MakeNicEni, nic: str
) -> None:
    plug(nic, eni.mac)
    await driver.attach(eni, netns)

    async with make_driver() as successor:
        assert await successor.sweep((netns.name.removeprefix("fargate-"),)) == []
        await successor.attach(eni, netns)

    assert "eth1" in names(netns)
    await driver.detach(eni, netns)


async def test_hardware_that_came_back_by_itself_under_the_tasks_name_is_named_again(
    eni: EniPlan, netns: Path, make_driver: MakeNicEni, driver: NicEni, nic: str
) -> None:
    plug(nic, eni.mac)
    before = describe(nic)
    twin = f"{nic}t"
    await driver.attach(eni, netns)
    # What the kernel does with hardware when the namespace of a task ends.
    run_ip("link", "set", "eth1", "name", twin, "netns", str(os.getpid()), netns=netns)
    assert describe(twin)[0] == twin

    async with make_driver() as successor:
        assert await successor.sweep(()) == [nic]

    assert describe(nic) == before


async def test_a_nic_whose_name_is_taken_gets_a_free_one_which_is_said(
    eni: EniPlan, netns: Path, driver: NicEni, nic: str, findings: Findings
) -> None:
    plug(nic, eni.mac)
    await driver.attach(eni, netns)
    run_ip("link", "add", nic, "type", "bridge")
    try:
        await driver.detach(eni, netns)

        (link,) = [link for link in read_ip("link") if link["address"] == eni.mac]
        assert link["ifname"].startswith("fgnic")
        assert "ifalias" not in link
        assert nic in " ".join(finding.what for finding in findings)
    finally:
        remove_link(nic)


async def test_a_nic_that_is_part_of_a_bridge_is_not_taken(
    eni: EniPlan, netns: Path, driver: NicEni, nic: str
) -> None:
    plug(nic, eni.mac)
    run_ip("link", "add", f"{nic}b", "type", "bridge")
    run_ip("link", "set", nic, "master", f"{nic}b")
    try:
        with pytest.raises(ResourceInitializationError, match="is a part of another interface"):
            await driver.attach(eni, netns)
        assert read_ip("link", "show", nic)[0]["master"] == f"{nic}b"
    finally:
        remove_link(f"{nic}b")


async def test_the_nic_of_the_hosts_default_route_is_not_taken(
    eni: EniPlan, netns: Path, driver: NicEni, nic: str
) -> None:
    plug(nic, eni.mac)
    run_ip("link", "set", nic, "up")
    run_ip("address", "add", "10.213.255.9/24", "dev", nic)
    run_ip("route", "add", "default", "via", "10.213.255.1", "dev", nic, "metric", "4000000000")

    with pytest.raises(ResourceInitializationError, match="its default route leads to"):
        await driver.attach(eni, netns)

    assert describe(nic)[0] == nic


@pytest.mark.parametrize("use", ["address", "mark"])
async def test_a_nic_that_the_host_or_another_agent_uses_is_not_taken(
    use: str, eni: EniPlan, netns: Path, driver: NicEni, nic: str
) -> None:
    plug(nic, eni.mac)
    if use == "address":
        run_ip("address", "add", "10.213.255.9/24", "dev", nic)
    else:
        holder = eni_alias("another", netns, eni.id)
        run_ip("link", "set", nic, "alias", f"{holder}:nic:{nic}:1500:")
    before = describe(nic)
    what = "has address 10.213.255.9/24" if use == "address" else "is marked by another agent"

    with pytest.raises(ResourceInitializationError, match=what):
        await driver.attach(eni, netns)

    assert describe(nic) == before


async def test_enis_of_a_task_have_names_in_their_order(
    make_eni: MakeEni, netns: Path, driver: NicEni, nic: str
) -> None:
    first = make_eni(kind=EniKind.NIC)
    second = make_eni(kind=EniKind.NIC, ifname="eth2", primary=False)
    plug(nic, first.mac)
    plug(f"{nic}2", second.mac)
    try:
        for eni in (first, second):
            await driver.attach(eni, netns)

        links = {link["ifname"]: link["address"] for link in read_ip("link", netns=netns)}
        assert (links["eth1"], links["eth2"]) == (first.mac, second.mac)
        (route,) = read_ip("route", "show", "default", netns=netns)
        assert route["dev"] == "eth1"
        for eni in (second, first):
            await driver.detach(eni, netns)
        assert describe(f"{nic}2")[0] == f"{nic}2"
    finally:
        remove_link(f"{nic}2p")


async def test_nobody_on_the_nics_network_reaches_the_metadata_endpoint(
    eni: EniPlan,
    netns: Path,
    driver: NicEni,
    gateway: Path,
    metadata_netns: MetadataNetns,
) -> None:
    await driver.attach(eni, netns)
    run_ip("route", "replace", f"{TMDS_ADDRESS}/32", "via", str(eni.address.ip), netns=gateway)
    with metadata_netns.bind(netns) as listener:
        listener.listen()

        assert await is_dropped(gateway, netns, TMDS_ADDRESS, 80)
    await driver.detach(eni, netns)


def cut_short(eni: EniPlan, netns: Path, nic: str, stage: str, prepared: PreparedEnis) -> None:
    """Leave a NIC as an agent does that is killed after one step of an attach."""
    holder = eni_alias(prepared.instance, netns, eni.id)
    run_ip("link", "set", nic, "alias", f"{holder}:nic:{nic}:1500:")
    if stage != "marked":
        run_ip("link", "set", nic, "netns", str(netns))
    if stage == "named":
        run_ip("link", "set", nic, "name", "eth1", netns=netns)
