"""ecs-ipam as a runtime runs it, with a store of its own."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.locks import turn
from tests.fixtures.cni_programs import IFNAME, Runtime, list_addresses

pytestmark = pytest.mark.root

NETNS = Path("/run/netns/any")
SUBNET = {"type": "ecs-ipam", "ipv4-subnet": "10.213.0.0/24", "ipv4-gateway": "10.213.0.8"}


@pytest.fixture
def ipam(tmp_path: Path, container: Path) -> Runtime:
    """Addresses of 10.213.0.0/24; all containers have one namespace, which isn't looked at."""
    config = {"cniVersion": "1.1.0", "name": "tasks", "type": "ecs-ipam", "ipam": SUBNET}
    return Runtime(tmp_path, config, variables={"CNI_NETNS": str(container)})


def add(ipam: Runtime, container: str = "one", **changes: Any) -> list[str]:
    """Return the addresses that a container gets, without lengths."""
    told = {**ipam.config["ipam"], **changes}
    result = ipam.add(NETNS, container, ipam=told)
    assert "interfaces" not in result
    return [one["address"].partition("/")[0] for one in result["ips"]]


def test_addresses_are_given_one_after_the_other(ipam: Runtime) -> None:
    """Also after one was freed: the next comes after that."""
    assert add(ipam, "a") == ["10.213.0.1"]
    assert ipam.run("DEL", container="a").status == 0
    assert add(ipam, "b") == ["10.213.0.2"]
    assert add(ipam, "c") == ["10.213.0.3"]


def test_a_result_has_gateway_and_routes(ipam: Runtime) -> None:
    both = {
        **SUBNET,
        "ipv4-routes": [{"dst": "169.254.170.2/32"}],
        "ipv6-subnet": "2001:db8::/64",
        "ipv6-routes": [{"dst": "::/0", "gw": "2001:db8::9", "mtu": 1280}],
    }

    result = ipam.add(NETNS, cniVersion="0.4.0", ipam=both)

    assert result == {
        "cniVersion": "0.4.0",
        "ips": [
            {"version": "4", "address": "10.213.0.1/24", "gateway": "10.213.0.8"},
            {"version": "6", "address": "2001:db8::2/64", "gateway": "2001:db8::1"},
        ],
        "routes": [
            {"dst": "169.254.170.2/32"},
            {"dst": "::/0", "gw": "2001:db8::9", "mtu": 1280},
        ],
        "dns": {},
    }


def test_a_subnet_that_is_used_up_says_so_and_goes_round(ipam: Runtime) -> None:
    small = {"ipv4-subnet": "10.213.0.0/29", "ipv4-gateway": "10.213.0.3"}
    assert [add(ipam, f"c{at}", **small) for at in (1, 2, 4, 5, 6)] == [
        [f"10.213.0.{at}"] for at in (1, 2, 4, 5, 6)
    ]
    full = "getAvailableIP ipstore: failed to find available ip addresses in the subnet"
    told = {"ipam": {**SUBNET, **small}}

    assert ipam.run("STATUS", **told).fault == (50, f"ecs-ipam: {full} 10.213.0.0/29")  # type: ignore[arg-type]
    assert ipam.run("ADD", NETNS, "new", ipam=told["ipam"]).fault[1].startswith(full)
    assert ipam.run("DEL", container="c2", ipam=told["ipam"]).status == 0
    assert add(ipam, "new", **small) == ["10.213.0.2"]


def test_an_id_has_one_address_and_only_its_attachment_frees_it(ipam: Runtime) -> None:
    assert add(ipam, "a", id="task-1") == ["10.213.0.1"]
    told = {**SUBNET, "id": "task-1"}

    for container in ("a", "b"):
        answer = ipam.run("ADD", NETNS, container, ipam=told)
        assert answer.fault == (100, "assign ipstore: id already exists, id: task-1")
    assert ipam.run("DEL", container="b", ipam=told).status == 0
    assert list_addresses(ipam.store) == ["10.213.0.1"]
    for _ in range(2):
        assert ipam.run("DEL", container="a", ipam=told).status == 0
    assert list_addresses(ipam.store) == []


def test_addresses_of_both_versions_can_be_asked_for_with_an_id(ipam: Runtime) -> None:
    asked = {
        "ipv4-address": "10.213.0.77/24",
        "ipv6-subnet": "2001:db8::/64",
        "ipv6-address": "2001:db8::77/64",
        "id": "task-1",
    }

    assert add(ipam, **asked) == ["10.213.0.77", "2001:db8::77"]

    answer = ipam.run("ADD", NETNS, "two", ipam={**SUBNET, **asked, "id": "task-2"})
    assert answer.fault[1].startswith("getIPV4Address commands: failed to mark this ip 10.213.0.77")
    assert len(list_addresses(ipam.store)) == 2


def test_a_gateway_that_a_container_has_is_refused(ipam: Runtime) -> None:
    add(ipam, "a")
    told = {**SUBNET, "ipv4-gateway": "10.213.0.1"}

    message = "verifyGateway commands: ip of gateway has already been used"
    assert ipam.run("ADD", NETNS, "b", ipam=told).fault == (100, message)


def test_check_wants_the_address_that_add_gave(ipam: Runtime) -> None:
    result = ipam.add(NETNS)
    other = {**result, "ips": [{"address": "10.213.0.9/24"}]}

    assert ipam.run("CHECK", NETNS, prevResult=result).status == 0
    assert ipam.run("CHECK", NETNS, prevResult=other).fault[0] == 100
    assert ipam.run("CHECK", NETNS, "two", prevResult=result).fault == (
        100,
        f"no ip address associated with the given id: two:{IFNAME}",
    )


def test_garbage_of_the_network_is_collected(ipam: Runtime) -> None:
    for container in ("kept", "gone"):
        add(ipam, container)
    ipam.add(NETNS, "other", name="others")

    assert ipam.collect("kept").status == 0

    assert list_addresses(ipam.store) == ["10.213.0.1", "10.213.0.3"]


def test_a_store_of_something_else_is_left_alone(ipam: Runtime) -> None:
    ipam.store.write_bytes(b"\x00bolt")

    assert ipam.run("ADD", NETNS).fault == (
        5,
        f"{ipam.store} holds something else than the addresses of ecs-ipam",
    )
    assert ipam.run("STATUS").fault[0] == 50
    assert ipam.store.read_bytes() == b"\x00bolt"


def test_only_root_reads_the_store(ipam: Runtime) -> None:
    add(ipam)

    assert ipam.store.stat().st_mode & 0o777 == 0o600


def test_who_waits_too_long_for_others_is_told_to_try_again(ipam: Runtime) -> None:
    ipam.variables["IPAM_DB_CONNECTION_TIMEOUT"] = "10ms"

    with turn(f"ipam-{zlib.crc32(os.fsencode(ipam.store)):08x}"):
        code, message = ipam.run("ADD", NETNS, "b").fault

    assert (code, message.partition(":")[0]) == (11, "timeout")


def test_a_directory_of_turns_that_others_write_to_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "turns"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    with pytest.raises(CniError, match="has to be a directory that nobody else writes to"):
        turn("x", directory=str(open_to_all)).__enter__()


def test_the_store_says_who_has_what(ipam: Runtime) -> None:
    add(ipam, "a", id="task-1")

    noted = json.loads(ipam.store.read_text())["holders"]
    assert noted == {"10.213.0.1": ["task-1", "tasks", "a", IFNAME]}
