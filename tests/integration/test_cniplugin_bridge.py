"""ecs-bridge and ecs-ipam as a runtime runs them, against the kernel."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.network.namespaces import inside
from tests.fixtures.cni_programs import (
    DEADLINE_S,
    IFNAME,
    PROGRAMS,
    Containers,
    Runtime,
    list_addresses,
    list_ends,
    read_addresses,
    read_link,
    read_routes,
)
from tests.fixtures.network import read_ip, remove_link, run_ip
from tests.fixtures.pulls import eventually

pytestmark = pytest.mark.root

MANY = 50
BOTH: dict[str, Any] = {
    "type": "ecs-ipam",
    "ipv4-subnet": "10.213.4.0/24",
    "ipv6-subnet": "2001:db8:4::/64",
    "ipv6-routes": [{"dst": "::/0", "mtu": 1300, "priority": 7}],
}


def test_a_container_reaches_its_gateway_and_its_credentials_only(
    bridge: Runtime, container: Path
) -> None:
    result = bridge.add(container)

    assert read_addresses(container) == {"169.254.172.2/22"}
    assert read_routes(container) == {
        ("169.254.172.1", "169.254.172.1"),
        ("169.254.170.2", "169.254.172.1"),
    }
    name = bridge.config["bridge"]
    assert read_addresses(None, name) == {"169.254.172.1/22"}
    inside_mac = "0a:58:a9:fe:ac:02"
    link = read_link(IFNAME, container)
    assert link is not None
    assert link["address"] == inside_mac
    host_bridge, host_end, in_container = result["interfaces"]
    assert host_bridge["name"] == name
    assert list_ends(name) == [host_end["name"]]
    assert in_container == {
        "name": IFNAME,
        "mac": inside_mac,
        "mtu": 1500,
        "sandbox": str(container),
    }
    assert result["ips"] == [
        {"interface": 2, "address": "169.254.172.2/22", "gateway": "169.254.172.1"}
    ]


def test_packets_of_both_versions_of_ip_reach_the_gateway(bridge: Runtime, container: Path) -> None:
    bridge.add(container, ipam=BOTH)

    for gateway in ("10.213.4.1", "2001:db8:4::1"):
        family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
        with socket.create_server((gateway, 0), family=family) as listener:
            listener.settimeout(DEADLINE_S)
            with inside(container):
                asking = socket.socket(family)
            with asking:
                asking.settimeout(DEADLINE_S)
                asking.connect(listener.getsockname()[:2])
                accepted, caller = listener.accept()
                accepted.close()
        assert caller[0] in {"10.213.4.2", "2001:db8:4::2"}


def test_what_a_route_asks_for_beside_its_gateway_is_not_lost(
    bridge: Runtime, container: Path
) -> None:
    bridge.add(container, ipam=BOTH)

    (route,) = [one for one in read_ip("-6", "route", netns=container) if one["dst"] == "default"]
    assert (route["metric"], route["metrics"]) == (7, [{"mtu": 1300}])


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_result_is_of_the_version_of_the_configuration(
    version: str, bridge: Runtime, container: Path
) -> None:
    result = bridge.add(container, cniVersion=version)

    assert result["cniVersion"] == version
    assert result["ips"][0].get("version") == (None if version >= "1" else "4")


def test_deleting_leaves_nothing_and_may_be_repeated(bridge: Runtime, container: Path) -> None:
    bridge.add(container)
    for _ in range(2):
        assert bridge.run("DEL", container) == bridge.run("DEL", "")

    assert read_link(IFNAME, container) is None
    assert list_ends(bridge.config["bridge"]) == []
    assert list_addresses(bridge.store) == []
    assert read_addresses(None, bridge.config["bridge"]) == {"169.254.172.1/22"}


def test_deleting_without_a_namespace_leaves_nothing(bridge: Runtime, container: Path) -> None:
    bridge.add(container)

    assert bridge.run("DEL", "/run/netns/gone").status == 0

    assert read_link(IFNAME, container) is None
    assert list_addresses(bridge.store) == []


def test_nothing_is_deleted_that_is_somebody_elses(bridge: Runtime, container: Path) -> None:
    bridge.add(container, "other")

    assert bridge.run("DEL", container, "one").status == 0

    assert read_link(IFNAME, container) is not None
    assert list_addresses(bridge.store) == ["169.254.172.2"]
    assert bridge.run("DEL", container, "other").status == 0


def test_an_interface_that_is_there_already_is_left_alone(bridge: Runtime, container: Path) -> None:
    run_ip("link", "add", IFNAME, "type", "veth", "peer", "name", "other", netns=container)

    code, message = bridge.run("ADD", container).fault

    assert (code, message) == (100, "container veth name provided (eth0) already exists")
    assert bridge.run("DEL", container).status == 0
    assert read_link(IFNAME, container) is not None
    assert list_addresses(bridge.store) == []


def test_a_failed_add_leaves_nothing(bridge: Runtime, container: Path) -> None:
    """The kernel refuses a route by a gateway that nothing leads to."""
    ipam = {**bridge.config["ipam"], "ipv4-routes": [{"dst": "10.0.0.0/8", "gw": "192.0.2.1"}]}

    code, message = bridge.run("ADD", container, ipam=ipam).fault

    assert (code, message) == (100, "route to 10.0.0.0/8 by 192.0.2.1: Network is unreachable")
    assert read_link(IFNAME, container) is None
    assert list_ends(bridge.config["bridge"]) == []
    assert list_addresses(bridge.store) == []


def test_a_bridge_with_another_address_is_refused(bridge: Runtime, container: Path) -> None:
    name = bridge.config["bridge"]
    run_ip("link", "add", name, "type", "bridge")
    run_ip("address", "add", "10.213.9.1/24", "dev", name)

    _, message = bridge.run("ADD", container).fault

    assert message == f"bridge configure: mismatch in bridge {name} address for family 2"
    assert list_addresses(bridge.store) == []


def test_an_interface_that_is_no_bridge_is_refused(bridge: Runtime, container: Path) -> None:
    name = bridge.config["bridge"]
    run_ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")

    message = f"bridge create: interface named {name} already exists, but is not a bridge"
    assert bridge.run("ADD", container).fault == (100, message)
    assert bridge.run("STATUS").fault == (50, message)


def test_check_tells_what_is_missing(bridge: Runtime, container: Path) -> None:
    previous = bridge.add(container)
    end = previous["interfaces"][1]["name"]
    told = []
    for change in (
        (),
        ("address", "del", "169.254.172.2/22", "dev", IFNAME),
        ("link", "set", IFNAME, "address", "02:00:00:00:00:01"),
    ):
        if change:
            run_ip(*change, netns=container)
        answer = bridge.run("CHECK", container, prevResult=previous)
        told.append(answer.printed["msg"] if answer.status else "")

    assert told == [
        "",
        "interface eth0 has no address 169.254.172.2/22",
        "interface eth0 has mac address 02:00:00:00:00:01, not 0a:58:a9:fe:ac:02",
    ]
    run_ip("link", "del", end)
    missing = "interface eth0 is missing in the container"
    assert bridge.run("CHECK", container, prevResult=previous).fault == (100, missing)


def test_check_sees_that_the_host_s_end_hangs_on_the_bridge(
    bridge: Runtime, container: Path
) -> None:
    previous = bridge.add(container)
    run_ip("link", "set", previous["interfaces"][1]["name"], "nomaster")

    _, message = bridge.run("CHECK", container, prevResult=previous).fault

    assert message.startswith("interface eth0 of the container hangs on no ")


def test_garbage_is_collected_but_what_is_valid_and_what_is_of_other_networks(
    bridge: Runtime, containers: Containers
) -> None:
    kept, gone, other = (containers.make() for _ in range(3))
    bridge.add(kept, "kept")
    bridge.add(gone, "gone")
    bridge.add(other, "other", name="others")

    assert bridge.run("GC").fault == (7, "missing required parameter cni.dev/valid-attachments")
    assert bridge.collect("kept").status == 0

    assert read_link(IFNAME, gone) is None
    assert read_link(IFNAME, kept) is not None
    assert read_link(IFNAME, other) is not None
    assert list_addresses(bridge.store) == ["169.254.172.2", "169.254.172.4"]


def test_many_at_once_get_different_addresses(bridge: Runtime, containers: Containers) -> None:
    bridge.variables["IPAM_DB_CONNECTION_TIMEOUT"] = "60s"
    config = bridge.directory / "config"
    config.write_text(json.dumps(bridge.config))
    running = []
    for number in range(MANY):
        environment = bridge.environment("ADD", f"c{number}", containers.make(), IFNAME)
        with config.open("rb") as stdin:
            running.append(
                subprocess.Popen(
                    [PROGRAMS / "ecs-bridge"],
                    env=environment,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                )
            )
    printed = [json.loads(one.communicate(timeout=DEADLINE_S)[0]) for one in running]

    assert [one.returncode for one in running] == [0] * MANY, printed
    addresses = {one["ips"][0]["address"] for one in printed}
    assert len(addresses) == len(list_addresses(bridge.store)) == MANY
    assert len(list_ends(bridge.config["bridge"])) == MANY


def test_another_plugin_for_addresses_is_a_program_of_the_path(
    bridge: Runtime, container: Path
) -> None:
    """Its errors are the answer; what it gives is used."""
    bridge.path = f"{bridge.directory}:/usr/lib/cni"
    ipam = {
        "type": "host-local",
        "dataDir": str(bridge.directory / "leases"),
        "ranges": [[{"subnet": "10.213.6.0/24", "gateway": "10.213.6.1"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    config: dict[str, Any] = {"cniVersion": "1.0.0", "ipam": ipam}

    result = bridge.add(container, **config)

    assert result["ips"][0]["address"] == "10.213.6.2/24"
    assert ("default", "10.213.6.1") in read_routes(container)
    assert bridge.run("CHECK", container, prevResult=result, **config).status == 0
    assert bridge.run("DEL", container, **config).status == 0
    assert not list((bridge.directory / "leases/tasks").glob("10.*"))
    wrong = {**ipam, "ranges": []}
    assert bridge.run("ADD", container, cniVersion="1.0.0", ipam=wrong).status == 1
    lost = {**ipam, "type": "nowhere"}
    _, message = bridge.run("ADD", container, cniVersion="1.0.0", ipam=lost).fault
    assert message == f'failed to find plugin "nowhere" in path [{bridge.path}]'


def test_an_ecs_ipam_that_comes_first_in_the_path_is_called(
    bridge: Runtime, container: Path
) -> None:
    other = bridge.directory / "ecs-ipam"
    other.write_text('#!/bin/sh\necho \'{"cniVersion":"1.1.0","code":123,"msg":"not today"}\'\n')
    other.chmod(0o755)
    bridge.path = f"{bridge.directory}:{PROGRAMS}"

    assert bridge.run("ADD", container).fault == (123, "not today")
    assert bridge.run("DEL", container).fault == (123, "not today")
    assert bridge.run("STATUS").fault == (123, "not today")


def test_sample_configuration_works(bridge: Runtime, container: Path) -> None:
    sample = json.loads((PROGRAMS / "10-ecs-bridge.conflist").read_text())
    (plugin,) = sample["plugins"]
    bridge.config = {"cniVersion": sample["cniVersion"], "name": sample["name"], **plugin}
    try:
        result = bridge.add(container)
        assert bridge.run("CHECK", container, prevResult=result).status == 0
        assert bridge.run("DEL", container).status == 0
    finally:
        remove_link(plugin["bridge"])


async def test_a_namespace_that_ended_leaves_only_an_address_for_del(
    bridge: Runtime, containers: Containers
) -> None:
    netns = containers.make()
    bridge.add(netns)
    containers.end(netns)
    await eventually(lambda: list_ends(bridge.config["bridge"]) == [])

    assert bridge.run("DEL", netns).status == 0

    assert list_addresses(bridge.store) == []


def test_a_container_may_have_ipv6_alone(bridge: Runtime, container: Path) -> None:
    """Its MAC is as the kernel chose it, and instance metadata is out of reach where asked for."""
    ipam = {"type": "ecs-ipam", "ipv6-subnet": "2001:db8:4::/64"}
    told: dict[str, Any] = {"ipam": ipam, "blockInstanceMetadata": True}

    result = bridge.add(container, **told)

    assert read_addresses(container) == {"2001:db8:4::2/64"}
    gateway = "2001:db8:4::1"
    blackholes = {("169.254.169.254", None), ("fd00:ec2::254", None)}
    assert read_routes(container) == {(gateway, gateway), *blackholes}
    link = read_link(IFNAME, container)
    assert link is not None
    assert result["interfaces"][2]["mac"] == link["address"]
    assert bridge.run("CHECK", container, prevResult=result, ipam=ipam).status == 0
