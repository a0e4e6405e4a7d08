"""vpc-eni as a runtime runs it, against the kernel. A NIC is one end of a pair."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cni_programs import (
    IFNAME,
    Nic,
    Runtime,
    read_addresses,
    read_link,
    read_routes,
)
from tests.fixtures.network import run_ip

pytestmark = pytest.mark.root

IMDS = {("169.254.169.254", None), ("fd00:ec2::254", None)}


@pytest.fixture
def vpc(tmp_path: Path, nic: Nic) -> Runtime:
    return Runtime(
        tmp_path,
        {
            "cniVersion": "1.0.0",
            "name": "vpc",
            "type": "vpc-eni",
            "eniMACAddress": nic.mac,
            "eniIPAddresses": ["10.213.1.5/24", "2001:db8:5::5/64"],
            "gatewayIPAddresses": ["10.213.1.1", "2001:db8:5::1"],
            "blockInstanceMetadata": True,
        },
    )


def is_as_it_was(nic: Nic) -> bool:
    link = read_link(nic.name)
    return link is not None and (link["ifalias"], link["address"]) == ("a friend", nic.mac)


@pytest.mark.parametrize("by", ["name", "mac", "both"])
def test_the_nic_is_in_the_container_and_comes_back(
    by: str, vpc: Runtime, nic: Nic, container: Path
) -> None:
    told: dict[str, Any] = {} if by == "mac" else {"eniName": nic.name}
    if by == "name":
        told["eniMACAddress"] = None
    result = vpc.add(container, **told)

    assert read_link(nic.name) is None
    assert read_addresses(container) == {"10.213.1.5/24", "2001:db8:5::5/64"}
    assert read_routes(container) >= {
        ("default", "10.213.1.1"),
        ("default", "2001:db8:5::1"),
        *IMDS,
    }
    assert result == {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": IFNAME, "mac": nic.mac, "sandbox": str(container)}],
        "ips": [
            {"interface": 0, "address": "10.213.1.5/24", "gateway": "10.213.1.1"},
            {"interface": 0, "address": "2001:db8:5::5/64", "gateway": "2001:db8:5::1"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.213.1.1"},
            {"dst": "::/0", "gw": "2001:db8:5::1"},
        ],
        "dns": {},
    }
    assert vpc.run("CHECK", container, prevResult=result, **told).status == 0
    for netns in (container, container, "", "/run/netns/gone"):
        assert vpc.run("DEL", netns, **told).status == 0
        assert is_as_it_was(nic)


def test_without_gateways_and_metadata_there_is_less(
    vpc: Runtime, nic: Nic, container: Path
) -> None:
    told: dict[str, Any] = {"gatewayIPAddresses": None, "blockInstanceMetadata": None}
    result = vpc.add(container, cniVersion="0.3.1", **told)

    assert result["ips"][0] == {"version": "4", "interface": 0, "address": "10.213.1.5/24"}
    assert not read_routes(container) & {*IMDS, ("default", "10.213.1.1")}


def test_a_nic_that_stays_down_keeps_its_name(vpc: Runtime, nic: Nic, container: Path) -> None:
    vpc.add(container, opStateDown=True)

    link = read_link(nic.name, container)
    assert link is not None
    assert "UP" not in link["flags"]
    assert vpc.run("DEL", container, opStateDown=True).status == 0
    assert is_as_it_was(nic)


def test_what_goes_wrong_in_the_container_is_told(vpc: Runtime, nic: Nic, container: Path) -> None:
    answer = vpc.run("ADD", container, gatewayIPAddresses=["192.0.2.1"])

    assert answer.fault == (100, "route by 192.0.2.1: Network is unreachable")
    assert is_as_it_was(nic)
    assert not read_routes(container)


def test_a_nic_that_is_not_there_is_told(vpc: Runtime, nic: Nic, container: Path) -> None:
    assert vpc.run("STATUS", cniVersion="1.1.0").status == 0
    faults = [
        vpc.run("ADD", container, eniName="nix").fault,
        vpc.run("ADD", container, eniName="lo").fault,
        vpc.run("STATUS", eniName="nix", cniVersion="1.1.0").fault,
    ]

    assert faults == [
        (100, "unable to find the device named nix"),
        (100, f"the device named lo has mac address 00:00:00:00:00:00, not {nic.mac}"),
        (50, "vpc-eni: unable to find the device named nix"),
    ]
    run_ip("link", "add", IFNAME, "type", "bridge", netns=container)
    assert vpc.run("ADD", container).fault == (100, "interface eth0 is in the container already")
    assert is_as_it_was(nic)
