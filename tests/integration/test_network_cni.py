"""ENIs that the CNI plugins of Debian make: a bridge of the test's, addresses of host-local."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.findings import Findings
from fargate_agent.network.cni.cache import Attachments
from fargate_agent.network.cni.eni import CniEni, CniSettings
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.cni import NETWORK, bridge_name, list_leases, write_network
from tests.fixtures.network import (
    CONNECT_TIMEOUT_S,
    MakeEni,
    MakeNetns,
    OpenFirewall,
    ask_caller,
    read_ip,
    remove_link,
    run_ip,
    serve_caller,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network", "forwarding_put_back")]


IPV6 = IPv6Network("fd00:213:5::/64")
ALL = RulePlan(protocol="-1", from_port=-1, to_port=-1, cidrs=(IPv4Network("0.0.0.0/0"),))


@pytest.fixture
def settings(tmp_path: Path, subnet: IPv4Network) -> CniSettings:
    return write_network(tmp_path, subnet)


@pytest.fixture
def eni(make_eni: MakeEni) -> EniPlan:
    return make_eni(kind=EniKind.CNI, cni_network=NETWORK)


def make_driver(netns_driver: KernelNetns, directory: Path, settings: CniSettings) -> CniEni:
    return CniEni(netns_driver.prepared, OpenFirewall(), directory / "attachments", settings)


@pytest.fixture
async def driver(
    netns_driver: KernelNetns, tmp_path: Path, settings: CniSettings
) -> AsyncIterator[CniEni]:
    async with make_driver(netns_driver, tmp_path, settings) as driver:
        yield driver
    remove_link(bridge_name(tmp_path))


def list_ports(directory: Path) -> list[str]:
    """Return what hangs on the bridge of a test."""
    bridge = bridge_name(directory)
    if bridge not in [link["ifname"] for link in read_ip("link")]:
        return []
    return [link["ifname"] for link in read_ip("link", "show", "master", bridge)]


def assert_nothing_is_left(directory: Path) -> None:
    assert list_ports(directory) == []
    assert list_leases(directory) == []
    assert list(Attachments(directory / "attachments")) == []
    assert list((directory / "attachments").glob("*")) == []


async def test_tasks_speak_to_each_other_and_to_the_gateway(
    eni: EniPlan, netns: Path, driver: CniEni, make_eni: MakeEni, make_netns: MakeNetns
) -> None:
    other, elsewhere = make_eni(kind=EniKind.CNI, cni_network=NETWORK), await make_netns()
    async with asyncio.TaskGroup() as both:
        both.create_task(driver.attach(eni, netns))
        both.create_task(driver.attach(other, elsewhere))

    async with serve_caller(elsewhere, other.address.ip) as port:
        assert await ask_caller(netns, other.address.ip, port) == str(eni.address.ip)
    async with serve_caller(None, eni.gateway) as port:
        assert await ask_caller(netns, eni.gateway, port) == str(eni.address.ip)
    (link,) = read_ip("link", "show", "eth1", netns=netns)
    assert link["address"] == eni.mac
    await driver.detach(eni, netns)
    await driver.detach(other, elsewhere)


async def test_security_groups_hold_from_the_attach_on(
    eni: EniPlan,
    netns: Path,
    instance: str,
    netns_driver: KernelNetns,
    tmp_path: Path,
    settings: CniSettings,
) -> None:
    member = replace(eni, security_groups=("sg-a",))
    async with HostFirewall(instance, tmp_path / FILE, FirewallSettings(), Findings()) as firewall:
        driver = CniEni(netns_driver.prepared, firewall, tmp_path / "attachments", settings)
        await firewall.learn([GroupPlan(id="sg-a", egress=(ALL,))])
        await driver.attach(member, netns)

        assert not is_let_in(member, netns)

        await firewall.learn([GroupPlan(id="sg-a", ingress=(ALL,), egress=(ALL,))])
        assert is_let_in(member, netns)
        await driver.detach(member, netns)
        await firewall.release()
    remove_link(bridge_name(tmp_path))


def is_let_in(eni: EniPlan, netns: Path) -> bool:
    """Whether a first packet of the host reaches the task, before an answer that does."""
    with ExitStack() as stack:
        target, asking, answering = (
            stack.enter_context(socket_in_netns(where, socket.AF_INET, socket.SOCK_DGRAM))
            for where in (netns, netns, Path("/proc/thread-self/ns/net"))
        )
        for one in (target, asking, answering):
            one.settimeout(CONNECT_TIMEOUT_S)
        target.bind((str(eni.address.ip), 0))
        answering.bind((str(eni.gateway), 0))
        asking.sendto(b"ask", answering.getsockname())
        _, asker = answering.recvfrom(100)
        answering.sendto(b"first", target.getsockname())
        answering.sendto(b"answer", asker)
        assert asking.recv(100) == b"answer"
        target.setblocking(False)
        try:
            return target.recv(100) == b"first"
        except BlockingIOError:
            return False


async def test_detach_leaves_nothing(
    eni: EniPlan, netns: Path, driver: CniEni, tmp_path: Path
) -> None:
    await driver.attach(eni, netns)
    assert (len(list_ports(tmp_path)), list_leases(tmp_path)) == (1, [str(eni.address.ip)])

    await driver.detach(eni, netns)

    assert_nothing_is_left(tmp_path)


async def test_an_address_is_given_back_also_when_the_namespace_has_gone(
    eni: EniPlan, netns: Path, driver: CniEni, tmp_path: Path, netns_driver: KernelNetns
) -> None:
    await driver.attach(eni, netns)
    await netns_driver.release(netns)

    await driver.detach(eni, netns)

    assert list_leases(tmp_path) == []


async def test_a_network_whose_configuration_was_removed_is_undone_as_it_was(
    eni: EniPlan, netns: Path, driver: CniEni, tmp_path: Path, settings: CniSettings
) -> None:
    await driver.attach(eni, netns)
    (settings.conf_dir / "10-lan.conflist").unlink()

    await driver.detach(eni, netns)

    assert_nothing_is_left(tmp_path)


async def test_an_interface_that_was_lost_is_made_again(
    eni: EniPlan, netns: Path, driver: CniEni
) -> None:
    await driver.attach(eni, netns)
    run_ip("link", "del", "eth1", netns=netns)

    await driver.attach(eni, netns)

    assert read_ip("link", "show", "eth1", netns=netns)
    await driver.detach(eni, netns)


@pytest.mark.parametrize("ipam", ["host-local", "static"])
async def test_an_eni_has_both_of_its_addresses(
    ipam: str,
    eni: EniPlan,
    netns: Path,
    driver: CniEni,
    tmp_path: Path,
    subnet: IPv4Network,
    settings: CniSettings,
) -> None:
    ranges = [[{"subnet": str(one), "gateway": str(one[1])}] for one in (subnet, IPV6)]
    write_network(tmp_path, subnet, type=ipam, **({"ranges": ranges} if ipam != "static" else {}))
    dual = replace(eni, ipv6_address=IPv6Interface((IPV6[5], 64)), ipv6_gateway=IPV6[1])

    await driver.attach(dual, netns)
    await driver.attach(dual, netns)

    (link,) = read_ip("address", "show", "eth1", netns=netns)
    found = {one["local"] for one in link["addr_info"] if one["scope"] == "global"}
    assert found == {str(eni.address.ip), str(IPV6[5])}
    (route,) = read_ip("route", "show", "default", netns=netns)
    (route6,) = read_ip("-6", "route", "show", "default", netns=netns)
    assert (route["gateway"], route6["gateway"]) == (str(eni.gateway), str(IPV6[1]))
    await driver.detach(dual, netns)
    assert_nothing_is_left(tmp_path)


async def test_an_attach_that_is_cancelled_is_undone(
    eni: EniPlan, netns: Path, netns_driver: KernelNetns, tmp_path: Path, settings: CniSettings
) -> None:
    """The second plugin never ends; the first has made the interface by then."""
    programs, started = tmp_path / "bin", tmp_path / "started"
    programs.mkdir()
    os.mkfifo(started)
    (programs / "endless").write_text(
        f"#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\necho started >{started}\nexec sleep 600\n"
    )
    (programs / "endless").chmod(0o755)
    file = settings.conf_dir / "10-lan.conflist"
    document = json.loads(file.read_text())
    document["plugins"].append({"type": "endless"})
    file.write_text(json.dumps(document))
    driver = make_driver(
        netns_driver, tmp_path, replace(settings, bin_dirs=(programs, *settings.bin_dirs))
    )
    attach = asyncio.create_task(driver.attach(eni, netns))
    assert await asyncio.to_thread(started.read_text) == "started\n"
    assert len(list_ports(tmp_path)) == 1

    attach.cancel()

    with pytest.raises(asyncio.CancelledError):
        await attach
    assert_nothing_is_left(tmp_path)
    remove_link(bridge_name(tmp_path))


async def test_an_address_that_is_not_the_enis_is_refused_and_given_back(
    eni: EniPlan,
    netns: Path,
    netns_driver: KernelNetns,
    tmp_path: Path,
    settings: CniSettings,
    driver: CniEni,
) -> None:
    given = str(eni.address.ip + 1)
    file = settings.conf_dir / "10-lan.conflist"
    document = json.loads(file.read_text())
    address = f"{given}/{eni.address.network.prefixlen}"
    programs = tmp_path / "bin"
    programs.mkdir()
    result = {"cniVersion": "1.0.0", "ips": [{"address": address}]}
    (programs / "deaf").write_text(
        f"#!/bin/sh\n[ $CNI_COMMAND = ADD ] && echo '{json.dumps(result)}'\nexit 0\n"
    )
    (programs / "deaf").chmod(0o755)
    document["plugins"][0]["ipam"] = {"type": "deaf"}
    file.write_text(json.dumps(document))
    deaf = replace(settings, bin_dirs=(programs, *settings.bin_dirs))

    with pytest.raises(ResourceInitializationError) as refusal:
        await make_driver(netns_driver, tmp_path, deaf).attach(eni, netns)

    assert refusal.value.reason == (
        f"ResourceInitializationError: ENI {eni.id}: network lan gave it address {given} instead"
        f" of {eni.address.ip}; use an IPAM plugin that takes ips, such as static or host-local"
    )
    assert_nothing_is_left(tmp_path)


async def test_a_successor_takes_an_attachment_over_and_sweeps_the_rest(
    eni: EniPlan,
    netns: Path,
    driver: CniEni,
    netns_driver: KernelNetns,
    tmp_path: Path,
    settings: CniSettings,
) -> None:
    await driver.attach(eni, netns)
    (before,) = read_ip("address", "show", "eth1", netns=netns)
    successor = make_driver(netns_driver, tmp_path, settings)

    assert await successor.sweep((netns.name.removeprefix("fargate-"),)) == []
    await successor.attach(eni, netns)
    assert read_ip("address", "show", "eth1", netns=netns) == [before]

    assert await successor.sweep(()) == [f"lan {eni.id}"]
    assert_nothing_is_left(tmp_path)


async def test_a_network_that_is_not_configured_is_named(
    eni: EniPlan, netns: Path, driver: CniEni, settings: CniSettings
) -> None:
    with pytest.raises(ResourceInitializationError, match=f"{eni.id}: .* has no network 'other'"):
        await driver.attach(replace(eni, cni_network="other"), netns)
