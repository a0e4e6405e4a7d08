from ipaddress import IPv4Interface
from pathlib import Path

from fargate_agent.findings import Finding, Findings
from fargate_agent.network.names import (
    bridge_mac,
    bridge_name,
    eni_alias,
    metadata_end_name,
    metadata_netns_name,
    netns_alias,
    ours_prefix,
    veth_name,
)

MAX_IFNAME_CHARS = 15


def test_interface_names_fit_and_tell_their_agent() -> None:
    bridge = bridge_name("one", IPv4Interface("10.0.0.1/20"))
    veth = veth_name("one", "eni-0123456789abcdef0")

    assert len(bridge) == len(veth) == MAX_IFNAME_CHARS
    assert bridge.startswith(ours_prefix("one"))
    assert veth.startswith(ours_prefix("one"))


def test_bridge_name_is_the_same_for_a_subnet_and_different_for_others() -> None:
    gateways = ["10.0.0.1/20", "10.0.0.1/24", "10.0.16.1/20"]

    names = {bridge_name("one", IPv4Interface(gateway)) for gateway in gateways}

    assert len(names) == len(gateways)
    assert bridge_name("one", IPv4Interface(gateways[0])) in names


def test_names_of_two_agents_never_meet() -> None:
    gateway = IPv4Interface("10.0.0.1/20")

    assert bridge_name("one", gateway) != bridge_name("two", gateway)
    assert veth_name("one", "eni-1") != veth_name("two", "eni-1")
    assert metadata_netns_name("one") != metadata_netns_name("two")


def test_name_of_a_tasks_metadata_interface_fits() -> None:
    assert len(metadata_end_name(Path("/proc/self/ns/net"))) <= MAX_IFNAME_CHARS


def test_bridge_mac_is_unicast_and_locally_administered() -> None:
    first_octet = int(bridge_mac("fg0000bxxxxxxxx").split(":")[0], 16)

    assert first_octet & 0b11 == 0b10


def test_alias_of_an_eni_tells_its_network_namespace() -> None:
    alias = eni_alias("one", Path("/run/netns/fargate-1"), "eni-1")

    assert alias.startswith(f"{netns_alias('one', 'fargate-1')}:")
    assert not alias.startswith(f"{netns_alias('one', 'fargate-12')}:")


def test_findings_keep_each_thing_once_in_order() -> None:
    findings = Findings()

    for what in ("no seccomp", "no nftables", "no seccomp"):
        findings.note(what, "tasks go on without")

    assert list(findings) == [
        Finding(what="no seccomp", effect="tasks go on without"),
        Finding(what="no nftables", effect="tasks go on without"),
    ]
