"""aws-appmesh and ecs-serviceconnect: where connections of a namespace go with their rules."""

import asyncio
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.network.namespaces import socket_in_netns
from tests.fixtures.cniplugins import run_plugin
from tests.fixtures.network import MakeNetns, run_ip

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

DEADLINE_S = 10
PROXY, APP, INGRESS_PROXY = 15001, 8080, 15000
ELSEWHERE = {4: "198.51.100.9", 6: "2001:db8:9::9"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
ANY = {4: "0.0.0.0", 6: "::"}
MESH: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "mesh",
    "type": "aws-appmesh",
    "ignoredUID": "1337",
    "proxyIngressPort": str(INGRESS_PROXY),
    "proxyEgressPort": str(PROXY),
    "appPorts": [str(port) for port in range(9000, 9020)] + [str(APP)],
    "egressIgnoredPorts": ["22"],
    "egressIgnoredIPs": ["198.51.100.99", "2001:db8:9::99"],
    "enableIPv6": True,
    "prevResult": {
        "cniVersion": "0.4.0",
        "interfaces": [{"name": "eth0"}],
        "ips": [{"version": "4", "address": "10.1.2.3/16", "interface": 0}],
    },
}
CONNECT: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "connect",
    "type": "ecs-serviceconnect",
    "ingressConfig": [{"listenerPort": INGRESS_PROXY, "interceptPort": APP}],
    "egressConfig": {
        "listenerPort": PROXY,
        "redirectMode": "nat",
        "vip": {"ipv4Cidr": "198.51.100.0/24", "ipv6Cidr": "2001:db8:9::/64"},
    },
    "enableIPv4": True,
    "enableIPv6": True,
    "prevResult": MESH["prevResult"],
}
TPROXY: dict[str, Any] = {
    **CONNECT,
    "egressConfig": {**CONNECT["egressConfig"], "redirectMode": "tproxy"},
}
CONFIGS = [MESH, CONNECT]


@pytest.fixture
async def container(make_netns: MakeNetns) -> Path:
    """A namespace with a way to addresses that nobody has."""
    netns = await make_netns()
    for version, network in ((4, "198.51.100.0/24"), (6, "2001:db8:9::/64")):
        run_ip(f"-{version}", "route", "add", network, "dev", "lo", netns=netns)
    return netns


@contextmanager
def listening(netns: Path, version: int, port: int) -> Iterator[socket.socket]:
    with socket_in_netns(netns, FAMILY[version], socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ANY[version], port))
        listener.listen()
        listener.settimeout(DEADLINE_S)
        yield listener


def reaches(netns: Path, version: int, address: str, port: int, listener: socket.socket) -> bool:
    """Whether a connection arrives at a listener. Others aren't answered: nobody is there."""
    with socket_in_netns(netns, FAMILY[version], socket.SOCK_STREAM) as connection:
        connection.settimeout(DEADLINE_S)
        try:
            connection.connect((address, port))
        except OSError:
            return False
        accepted, peer = listener.accept()
        for one in (accepted, connection):  # no end that waits for an answer stays in the kernel
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        return bool(peer[:2] == connection.getsockname()[:2])


def tables(netns: Path) -> str:
    return subprocess.run(
        ["nsenter", f"--net={netns}", "nft", "list", "ruleset"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("config", CONFIGS, ids=["appmesh", "serviceconnect"])
async def test_what_a_container_sends_goes_through_its_proxy(
    container: Path, config: dict[str, Any], version: int
) -> None:
    answer = run_plugin(config["type"], "ADD", config, container)
    with listening(container, version, PROXY) as proxy:
        found = await asyncio.to_thread(reaches, container, version, ELSEWHERE[version], 80, proxy)

    assert found
    assert answer.document["ips"] == MESH["prevResult"]["ips"]


@pytest.mark.parametrize("config", CONFIGS, ids=["appmesh", "serviceconnect"])
async def test_what_comes_for_a_port_goes_through_the_proxy(
    container: Path, make_netns: MakeNetns, config: dict[str, Any]
) -> None:
    """The one that asks is a neighbour. Of many ports the last one counts, too."""
    neighbour = await make_netns()
    run_ip("link", "add", "in0", "netns", str(container), "type", "veth",
           "peer", "name", "out0", "netns", str(neighbour))  # fmt: skip
    for netns, name, address in ((container, "in0", "192.0.2.1"), (neighbour, "out0", "192.0.2.2")):
        run_ip("address", "add", f"{address}/24", "dev", name, netns=netns)
        run_ip("link", "set", name, "up", netns=netns)
    run_plugin(config["type"], "ADD", config, container)
    with listening(container, 4, INGRESS_PROXY) as proxy:
        assert await asyncio.to_thread(reaches, neighbour, 4, "192.0.2.1", APP, proxy)


async def test_what_the_proxy_itself_sends_and_what_is_ignored_goes_on(container: Path) -> None:
    run_plugin("aws-appmesh", "ADD", MESH, container)
    connect = (
        "import socket; s = socket.socket(); s.settimeout(0.3); "
        "s.connect(('198.51.100.9', 80)); print('reached')"
    )
    command = ["nsenter", f"--net={container}", "setpriv", "--reuid=1337", "--regid=1337",
               "--clear-groups", "/usr/bin/python3", "-c", connect]  # fmt: skip
    for address in ("198.51.100.9", "198.51.100.99"):
        run_ip("address", "add", f"{address}/32", "dev", "lo", netns=container)
    run_ip("address", "del", "198.51.100.9/32", "dev", "lo", netns=container)
    with listening(container, 4, PROXY) as proxy:
        as_proxy = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False
        )
        ignored = await asyncio.to_thread(reaches, container, 4, "198.51.100.99", PROXY, proxy)
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()

    assert "reached" not in as_proxy.stdout
    assert ignored


@pytest.mark.parametrize("config", [*CONFIGS, TPROXY], ids=["appmesh", "nat", "tproxy"])
async def test_all_is_taken_back_as_often_as_asked(container: Path, config: dict[str, Any]) -> None:
    before = tables(container)
    name = config["type"]
    added = run_plugin(name, "ADD", config, container)
    again = run_plugin(name, "ADD", config, container)
    checked = run_plugin(name, "CHECK", config, container)
    there = tables(container)
    ends = [run_plugin(name, "DEL", config, where) for where in (container, container, "", "/no")]

    assert [one.status for one in (added, again, checked, *ends)] == [0] * 7
    assert "chain" in there
    assert tables(container) == before
    assert run_plugin(name, "CHECK", config, container).status == 1
    for version in ("-4", "-6"):
        assert "fwmark" not in run_ip(version, "rule", "list", netns=container)


@pytest.mark.parametrize("version", [4, 6])
async def test_transparent_proxy_sees_the_address_that_was_asked_for(
    container: Path, make_netns: MakeNetns, version: int
) -> None:
    """What a neighbour sends through the container to the mesh arrives at the proxy as it is."""
    neighbour = await make_netns()
    here, there = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8:2::1", "2001:db8:2::2")}[version]
    length = {4: 24, 6: 64}[version]
    run_ip("link", "add", "in0", "netns", str(container), "type", "veth",
           "peer", "name", "out0", "netns", str(neighbour))  # fmt: skip
    for netns, name, address in ((container, "in0", here), (neighbour, "out0", there)):
        run_ip("address", "add", f"{address}/{length}", "dev", name, "nodad", netns=netns)
        run_ip("link", "set", name, "up", netns=netns)
    run_ip(f"-{version}", "route", "add", "default", "via", here, netns=neighbour)
    answer = run_plugin("ecs-serviceconnect", "ADD", TPROXY, container)
    assert answer.status == 0, answer
    transparent = {4: (socket.SOL_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}[version]
    with listening(container, version, PROXY) as proxy:
        proxy.setsockopt(*transparent, 1)
        with socket_in_netns(neighbour, FAMILY[version], socket.SOCK_STREAM) as connection:
            connection.settimeout(DEADLINE_S)
            await asyncio.to_thread(connection.connect, (ELSEWHERE[version], 80))
            accepted, _ = proxy.accept()
            asked = accepted.getsockname()[:2]
            accepted.close()

    assert asked == (ELSEWHERE[version], 80)


async def test_route_that_the_kernel_refuses_leaves_nothing(container: Path) -> None:
    egress = {
        "redirectIP": {"ipv4": "10.1.1.1"},
        "redirectMode": "tproxy",
        "vip": {"ipv4Cidr": "203.0.113.0/24"},
    }
    before = tables(container)
    config = {**CONNECT, "egressConfig": egress, "enableIPv6": False}

    answer = run_plugin("ecs-serviceconnect", "ADD", config, container)

    assert answer.error == "add route to 203.0.113.0/24 via 10.1.1.1: Network is unreachable"
    assert tables(container) == before
