"""ecs-eni as a runtime runs it, against the kernel. A NIC is one end of a pair."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cni_programs import (
    IFNAME,
    Containers,
    Nic,
    Runtime,
    make_nic,
    read_addresses,
    read_link,
    read_routes,
)
from tests.fixtures.network import read_ip, remove_link, run_ip

pytestmark = pytest.mark.root

IMDS = {("169.254.169.254", None), ("fd00:ec2::254", None)}


def is_as_it_was(nic: Nic) -> bool:
    """Whether the NIC is on the host with the name, alias and MTU of before, and is down."""
    link = read_link(nic.name)
    return link is not None and (link["ifalias"], link["mtu"], link["address"]) == (
        "a friend",
        1450,
        nic.mac,
    )


def test_the_nic_is_in_the_container_with_all_it_is_told_to_have(
    ecs_eni: Runtime, nic: Nic, container: Path
) -> None:
    result = ecs_eni.add(container)

    assert read_link(nic.name) is None
    assert read_addresses(container) == {"10.213.1.5/24", "2001:db8:5::5/64"}
    assert read_routes(container) >= {
        ("default", "10.213.1.1"),
        ("default", "2001:db8:5::1"),
        *IMDS,
    }
    link = read_link(IFNAME, container)
    assert link is not None
    assert (link["mtu"], link["address"], "UP" in link["flags"]) == (1400, nic.mac, True)
    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": IFNAME, "mac": nic.mac, "mtu": 1400, "sandbox": str(container)}],
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


def test_deleting_gives_the_nic_back_as_it_was_and_may_be_repeated(
    ecs_eni: Runtime, nic: Nic, container: Path
) -> None:
    ecs_eni.add(container)

    for netns in (container, container, ""):
        assert ecs_eni.run("DEL", netns).status == 0
        assert is_as_it_was(nic)
    assert not read_routes(container)


def test_a_nic_that_stays_down_has_its_own_name_and_nothing_else(
    ecs_eni: Runtime, nic: Nic, container: Path
) -> None:
    told: dict[str, Any] = {"stay-down": True}
    result = ecs_eni.add(container, **told)

    link = read_link(nic.name, container)
    assert link is not None
    assert "UP" not in link["flags"]
    assert result["interfaces"][0]["name"] == nic.name
    assert read_routes(container) == set()
    assert ecs_eni.run("CHECK", container, prevResult=result, **told).status == 0
    assert ecs_eni.run("DEL", container, **told).status == 0
    assert is_as_it_was(nic)


def test_a_failed_add_gives_the_nic_back(ecs_eni: Runtime, nic: Nic, container: Path) -> None:
    ecs_eni.config["gateway-ip-addresses"] = ["192.0.2.1"]

    answer = ecs_eni.run("ADD", container)

    assert answer.fault == (100, "route by 192.0.2.1: Network is unreachable")
    assert is_as_it_was(nic)
    assert not read_routes(container)


def test_adding_twice_leaves_the_first(ecs_eni: Runtime, container: Path) -> None:
    ecs_eni.add(container)

    assert ecs_eni.run("ADD", container).fault == (100, "one has a device for eth0 already")
    assert ecs_eni.run("ADD", container, "two").fault[0] == 100
    assert read_addresses(container) == {"10.213.1.5/24", "2001:db8:5::5/64"}
    assert ecs_eni.run("DEL", container, "two").status == 0
    assert read_link(IFNAME, container) is not None


def test_a_name_that_is_taken_is_refused(ecs_eni: Runtime, nic: Nic, container: Path) -> None:
    run_ip("link", "add", IFNAME, "type", "veth", "peer", "name", "other", netns=container)

    assert ecs_eni.run("ADD", container).fault == (
        100,
        "interface eth0 is in the container already",
    )
    assert is_as_it_was(nic)


def test_a_nic_that_came_back_by_itself_is_restored(
    ecs_eni: Runtime, nic: Nic, container: Path
) -> None:
    """So the kernel gives hardware back when a namespace ends."""
    ecs_eni.add(container)
    run_ip("link", "set", IFNAME, "down", netns=container)
    run_ip("link", "set", IFNAME, "name", "dev7", netns=container)
    run_ip("link", "set", "dev7", "netns", str(os.getpid()), netns=container)

    assert ecs_eni.run("DEL", "/run/netns/gone").status == 0
    assert is_as_it_was(nic)


def test_a_name_that_somebody_took_meanwhile_is_left_to_them(
    ecs_eni: Runtime, nic: Nic, container: Path
) -> None:
    ecs_eni.add(container)
    run_ip("link", "add", nic.name, "type", "bridge")
    try:
        assert ecs_eni.run("DEL", container).status == 0
        back = [one for one in read_ip("link") if one["address"] == nic.mac]
        assert [one["ifname"][:3] for one in back] == ["ecs"]
        assert [one["ifalias"] for one in back] == ["a friend"]
    finally:
        remove_link(nic.name)


def test_check_tells_what_is_missing(ecs_eni: Runtime, container: Path) -> None:
    previous = ecs_eni.add(container)
    assert ecs_eni.run("CHECK", container, prevResult=previous).status == 0
    told = []
    for change in (
        ("link", "set", IFNAME, "mtu", "1300"),
        ("route", "del", "default"),
        ("address", "del", "10.213.1.5/24", "dev", IFNAME),
    ):
        run_ip(*change, netns=container)
        told.append(ecs_eni.run("CHECK", container, prevResult=previous).fault[1])

    assert told == [
        "interface eth0 has MTU 1300, not 1400",
        "the container has no route to 0.0.0.0/0 by 10.213.1.1",
        "interface eth0 has no address 10.213.1.5/24",
    ]
    assert ecs_eni.run("CHECK", container).fault == (7, "Required prevResult missing")


def test_status_tells_whether_the_nic_can_be_taken(ecs_eni: Runtime, container: Path) -> None:
    assert ecs_eni.run("STATUS").status == 0
    ecs_eni.add(container)

    code, message = ecs_eni.run("STATUS").fault

    assert code == 50
    assert message.startswith("ecs-eni: unable to find the device with mac address 0a:")


def test_garbage_is_given_back_but_what_is_valid(
    ecs_eni: Runtime, nic: Nic, containers: Containers
) -> None:
    kept, gone = containers.make(), containers.make()
    other = make_nic()
    try:
        ecs_eni.add(gone, "gone")
        ecs_eni.add(kept, "kept", mac=other.mac)

        assert ecs_eni.collect("kept").status == 0

        assert is_as_it_was(nic)
        assert read_link(IFNAME, gone) is None
        assert read_link(IFNAME, kept) is not None
        assert ecs_eni.run("GC").fault[0] == 7
    finally:
        remove_link(other.cable)


def test_what_the_host_uses_is_not_taken(ecs_eni: Runtime, nic: Nic, container: Path) -> None:
    run_ip("link", "set", nic.name, "up")
    run_ip("address", "add", "10.213.1.9/24", "dev", nic.name)
    run_ip("route", "add", "default", "via", "10.213.1.1", "metric", "4000000000")

    _, message = ecs_eni.run("ADD", container).fault

    assert message.endswith("is what the default route of this machine leads to")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eni": None}, "newconf types: missing required parameter in config: 'eni'"),
        ({"mac": None}, "newconf types: missing required parameter in config: 'mac'"),
        (
            {"ip-addresses": []},
            "newconf types: missing required parameter in config: 'ip-addresses'",
        ),
        ({"mac": "01:23"}, "newconf types: malformatted mac address specified"),
        (
            {"ip-addresses": ["10.0.0.5"]},
            "invalid ip-addresses: '10.0.0.5' is no IP address with a length",
        ),
        (
            {"gateway-ip-addresses": ["x"]},
            "invalid gateway-ip-addresses: 'x' is no IP address",
        ),
        (
            {"mac": "02:00:00:00:00:09"},
            "unable to find the device with mac address 02:00:00:00:00:09",
        ),
    ],
)
def test_what_is_wrong_is_told(
    change: dict[str, Any], message: str, ecs_eni: Runtime, container: Path
) -> None:
    assert ecs_eni.run("ADD", container, **change).fault[1] == message
