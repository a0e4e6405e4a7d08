"""ecs-serviceconnect as a runtime runs it: which listener connections really reach."""

from pathlib import Path
from typing import Any

import pytest

from fargate_agent.cniplugins.proxy_routing import PROTOCOL
from tests.fixtures.cni_programs import IFNAME, Containers, Runtime
from tests.fixtures.injection import show
from tests.fixtures.network import run_ip
from tests.fixtures.proxied import PEER, POD, Pod, reached
from tests.integration.test_cniplugin_kills import run_and_kill

pytestmark = pytest.mark.root

APP, INBOUND, OUTBOUND = 8080, 30000, 30002
VIPS = {4: "127.255.0.9", 6: "2001:db8:aa::9"}
VIP = {"ipv4Cidr": "127.255.0.0/16", "ipv6Cidr": "2001:db8:aa::1/64"}
NAT = {"listenerPort": OUTBOUND, "redirectMode": "nat", "vip": VIP}
TPROXY = {**NAT, "redirectMode": "tproxy"}
GATEWAYS = {
    "redirectIP": {"ipv4": PEER[4], "ipv6": PEER[6]},
    "redirectMode": "tproxy",
    "vip": {"ipv4Cidr": "10.213.9.0/24", "ipv6Cidr": "2001:db8:bb::/64"},
}
LISTENERS = [{"listenerName": "in", "listenerPort": INBOUND, "interceptPort": APP}]


@pytest.fixture
def services(tmp_path: Path) -> Runtime:
    return Runtime(
        tmp_path,
        {
            "cniVersion": "1.1.0",
            "name": "services",
            "type": "ecs-serviceconnect",
            "ingressConfig": LISTENERS,
            "egressConfig": NAT,
            "enableIPV4": True,
            "enableIPV6": True,
            "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.3/16"}]},
        },
    )


def look(netns: Path) -> tuple[str, list[str]]:
    """Return rules of the packet filter, and the plugin's routes and rules of routing."""
    lines = [
        line
        for version in ("-4", "-6")
        for what in (("route", "show", "table", "all"), ("rule",))
        for line in run_ip(version, *what, netns=netns).splitlines()
        if f"proto {PROTOCOL}" in line
    ]
    return show(netns, "nft", "list", "ruleset"), lines


def lead_to_loopback(pod: Pod) -> None:
    """As 127.0.0.0/8 does by itself."""
    run_ip("-6", "route", "add", "local", "2001:db8:aa::/64", "dev", "lo", netns=pod.netns)


@pytest.mark.parametrize("version", [4, 6])
def test_nat_brings_connections_to_the_proxy(version: int, services: Runtime, pod: Pod) -> None:
    services.add(pod.netns)
    lead_to_loopback(pod)
    inbound, outbound = pod.listen(INBOUND, version), pod.listen(OUTBOUND, version)
    app, there = pod.listen(APP, version), pod.listen(5555, version, pod.peer)

    assert reached(inbound, pod.connect(POD[version], APP, pod.peer))
    assert reached(outbound, pod.connect(VIPS[version], 80))
    assert reached(app, pod.connect(POD[version], APP))  # from the container itself
    assert reached(there, pod.connect(PEER[version], 5555))


@pytest.mark.parametrize("version", [4, 6])
def test_tproxy_brings_connections_to_the_proxy_with_their_destination(
    version: int, services: Runtime, pod: Pod
) -> None:
    services.add(pod.netns, egressConfig=TPROXY)
    lead_to_loopback(pod)
    outbound = pod.listen(OUTBOUND, version, transparent=True)
    there = pod.listen(5555, version, pod.peer)

    assert reached(outbound, pod.connect(VIPS[version], 80)) == (VIPS[version], 80)
    assert reached(there, pod.connect(PEER[version], 5555))


@pytest.mark.parametrize("version", [4, 6])
def test_tproxy_brings_what_comes_from_elsewhere_to_the_proxy(
    version: int, services: Runtime, pod: Pod
) -> None:
    vip = {4: "10.213.9.9", 6: "2001:db8:bb::9"}[version]
    services.add(pod.netns, egressConfig={**TPROXY, "vip": GATEWAYS["vip"]})
    run_ip("route", "add", vip, "via", POD[version], netns=pod.peer)
    outbound = pod.listen(OUTBOUND, version, transparent=True)

    connection = pod.connect(vip, 80, pod.peer)

    assert reached(outbound, connection) == (vip, 80)


@pytest.mark.parametrize("version", [4, 6])
def test_a_proxy_elsewhere_is_the_gateway(version: int, services: Runtime, pod: Pod) -> None:
    vip = {4: "10.213.9.9", 6: "2001:db8:bb::9"}[version]
    services.add(pod.netns, egressConfig=GATEWAYS)
    run_ip("route", "add", "local", vip, "dev", "lo", netns=pod.peer)
    there = pod.listen(80, version, pod.peer)

    assert reached(there, pod.connect(vip, 80)) == (vip, 80)


@pytest.mark.parametrize("egress", [NAT, TPROXY, GATEWAYS, None])
def test_deleting_leaves_nothing_and_may_be_repeated(
    egress: dict[str, Any] | None, services: Runtime, pod: Pod
) -> None:
    before = look(pod.netns)
    services.add(pod.netns, egressConfig=egress)
    made = look(pod.netns)
    assert made != before
    assert services.run("CHECK", pod.netns, egressConfig=egress).status == 0
    other = services.run("DEL", pod.netns, ifname="eth1", egressConfig=egress)
    assert (other.status, look(pod.netns)) == (0, made)

    for netns in (pod.netns, pod.netns, "", "/run/netns/gone"):
        assert services.run("DEL", netns, egressConfig=egress).status == 0
        assert look(pod.netns) == before


def test_a_failed_add_leaves_nothing(services: Runtime, container: Path) -> None:
    for egress, message in (
        (TPROXY, "route by lo, which has to be up: Network is down"),
        (GATEWAYS, "route to 10.213.9.0/24 by 10.213.7.1: Network is unreachable"),
    ):
        before = look(container)
        assert services.run("ADD", container, egressConfig=egress).fault == (100, message)
        assert look(container) == before


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_deleting_takes_back_all_that_a_killed_call_left(
    verb: str, services: Runtime, container: Path
) -> None:
    services.config["egressConfig"] = TPROXY
    run_ip("link", "set", "lo", "up", netns=container)
    before, times = look(container), 0
    for sent_until in range(1, 40):
        if verb == "DEL":
            services.add(container)
        killed = run_and_kill(services, verb, container, sent_until)
        times += killed
        assert services.run("DEL", container).status == 0
        assert look(container) == before
        if not killed:
            break
    assert times >= 5  # a table, two routes and two rules


def test_routes_are_found_also_if_the_rules_are_gone(services: Runtime, pod: Pod) -> None:
    before = look(pod.netns)
    services.add(pod.netns, egressConfig=TPROXY)
    show(pod.netns, "nft", "flush", "ruleset")

    assert services.run("DEL", pod.netns).status == 0
    assert look(pod.netns) == before


def test_the_result_is_that_of_the_plugin_before(services: Runtime, container: Path) -> None:
    assert services.add(container)["ips"] == [{"address": "10.1.2.3/16"}]
    services.run("DEL", container)
    assert services.add(container, prevResult=None) == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": IFNAME, "sandbox": str(container)}],
        "ips": [],
        "dns": {},
    }


def test_check_tells_what_is_missing(services: Runtime, pod: Pod) -> None:
    services.add(pod.netns, egressConfig=TPROXY)
    told = []
    for change in (
        ("-4", "route", "flush", "table", "100"),
        ("-4", "route", "add", "local", "default", "dev", "lo", "table", "100"),
        ("-6", "rule", "del", "fwmark", "1"),
    ):
        run_ip(*change, netns=pod.netns)
        answer = services.run("CHECK", pod.netns, egressConfig=TPROXY)
        told.append(answer.status and answer.fault[1])

    assert told == [
        "the container has no route to 0.0.0.0/0 in table 100",
        0,
        "the container has no rule of routing for mark 1 of IPv6",
    ]


def test_garbage_is_removed_but_what_is_valid(services: Runtime, containers: Containers) -> None:
    kept, gone = containers.make(), containers.make()
    for netns in (kept, gone):
        run_ip("link", "set", "lo", "up", netns=netns)
    before = look(gone)
    services.add(kept, "kept", egressConfig=TPROXY)
    services.add(gone, "gone", egressConfig=TPROXY)
    made = look(kept)
    valid: dict[str, Any] = {
        "cni.dev/valid-attachments": [{"containerID": "kept", "ifname": IFNAME}]
    }

    assert services.run("GC", **valid).status == 0

    assert (look(gone), look(kept)) == (before, made)
    assert services.run("STATUS").status == 0
