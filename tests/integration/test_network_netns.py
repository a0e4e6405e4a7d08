"""A network namespace as the kernel has it."""

import asyncio
import socket
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.names import host_end_prefix
from fargate_agent.network.namespaces import is_netns
from fargate_agent.network.netlink import read_link_stats, socket_in_netns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EniPlan
from tests.fixtures.network import (
    ask_caller,
    open_tcp,
    read_host_names,
    read_ip,
    serve_caller,
)
from tests.fixtures.pulls import eventually

pytestmark = pytest.mark.root


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254"])
async def test_instance_metadata_is_unreachable_at_once(
    address: str, netns: Path, attached: EniPlan
) -> None:
    loop = asyncio.get_running_loop()
    with open_tcp(netns, ip_address(address)) as connection:
        async with asyncio.timeout(0.5):
            with pytest.raises(OSError, match="Invalid argument|unreachable|No route") as refusal:
                await loop.sock_connect(connection, (address, 80))

    assert not isinstance(refusal.value, TimeoutError)


async def test_instance_metadata_is_black_holed_for_both_families(netns: Path) -> None:
    ipv4 = read_ip("route", "show", "type", "blackhole", netns=netns)
    ipv6 = read_ip("-6", "route", "show", "type", "blackhole", netns=netns)

    assert [route["dst"] for route in ipv4] == ["169.254.169.254"]
    assert [route["dst"] for route in ipv6] == ["fd00:ec2::254"]


@pytest.fixture
def plain_file(tmp_path: Path) -> Path:
    path = tmp_path / "netns" / "fargate-left"
    path.parent.mkdir()
    path.touch()
    return path


async def test_a_plain_file_left_by_a_crash_becomes_a_namespace(
    plain_file: Path, netns_driver: KernelNetns
) -> None:
    await netns_driver.ensure(plain_file)

    assert is_netns(plain_file)
    assert [link["ifname"] for link in read_ip("link", netns=plain_file)] == [
        "lo",
        "eth0",
        "eth1",
    ]
    await netns_driver.release(plain_file)


async def test_release_removes_a_plain_file_too(
    plain_file: Path, netns_driver: KernelNetns
) -> None:
    await netns_driver.release(plain_file)

    assert not plain_file.exists()


async def test_release_removes_a_namespace_mounted_twice(
    netns: Path, netns_driver: KernelNetns
) -> None:
    subprocess.run(["mount", "--bind", str(netns), str(netns)], check=True)

    await netns_driver.release(netns)

    assert not netns.exists()


async def test_a_socket_stays_in_its_namespace_and_the_thread_comes_home(netns: Path) -> None:
    home = Path("/proc/thread-self/ns/net").readlink()

    with socket_in_netns(netns, socket.AF_INET, socket.SOCK_DGRAM, 0) as inner:
        inner.bind(("169.254.172.2", 0))

        assert Path("/proc/thread-self/ns/net").readlink() == home
        assert not inner.get_inheritable()


async def test_a_namespace_made_while_the_task_is_stopped_is_not_left_behind(
    tmp_path: Path, netns_driver: KernelNetns
) -> None:
    for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006):
        path = tmp_path / "netns" / "fargate-stopped"
        ensuring = asyncio.create_task(netns_driver.ensure(path))
        await asyncio.sleep(delay_s)
        ensuring.cancel()
        await asyncio.wait([ensuring])

        await netns_driver.release(path)

        assert not path.exists()


async def test_link_stats_count_what_went_through_the_interface(
    netns: Path, attached: EniPlan
) -> None:
    before = await read_link_stats(netns)
    async with serve_caller(netns, attached.address.ip) as port:
        await ask_caller(None, attached.address.ip, port)

    after = await read_link_stats(netns)

    assert set(before) == {"eth0", "eth1"}
    assert after["eth1"].tx_packets > before["eth1"].tx_packets
    assert after["eth1"].rx_bytes > before["eth1"].rx_bytes


@pytest.mark.parametrize("has_tasks", [True, False], ids=["with tasks", "without"])
async def test_where_tasks_find_their_metadata_outlives_an_agent_that_has_some(
    has_tasks: bool, instance: str, metadata_netns: MetadataNetns
) -> None:
    async with KernelNetns(instance, metadata_netns.path.parent, lambda: has_tasks) as driver:
        job = asyncio.create_task(driver.serve())
        await eventually(lambda: is_netns(metadata_netns.path))

        job.cancel()
        await asyncio.wait([job])

    assert metadata_netns.path.exists() == has_tasks


async def test_the_first_interface_is_prepared_and_its_other_end_goes_with_the_namespace(
    tmp_path: Path, netns_driver: KernelNetns, instance: str
) -> None:
    netns = tmp_path / "netns" / "fargate-prepared"
    await netns_driver.ensure(netns)

    (inside_end,) = read_ip("link", "show", "eth1", netns=netns)
    (end,) = [one for one in read_ip("link") if host_end_prefix(instance) in one["ifname"]]
    assert (inside_end["ifindex"], inside_end["mtu"]) == (3, 9001)
    for one in (inside_end, end):
        assert {"NOARP", "UP"} <= set(one["flags"])
    assert inside_end["address"] == end["address"]
    settings = {
        "ipv4/conf/{}/forwarding": "1",
        "ipv4/conf/{}/rp_filter": "1",
        "ipv4/conf/{}/accept_redirects": "0",
        "ipv4/conf/{}/send_redirects": "0",
        "ipv6/conf/{}/accept_ra": "0",
        "ipv6/conf/{}/accept_redirects": "0",
        "ipv6/conf/{}/autoconf": "0",
    }
    for setting, value in settings.items():
        path = Path("/proc/sys/net") / setting.format(end["ifname"])
        assert (setting, path.read_text().strip()) == (setting, value)
    assert read_ip("address", "show", "dev", end["ifname"])[0]["addr_info"] == []

    await netns_driver.release(netns)

    await eventually(lambda: read_host_names(instance) == set())


async def test_a_prepared_interface_makes_room_for_one_of_another_kind(
    netns: Path, netns_driver: KernelNetns, instance: str
) -> None:
    await netns_driver.prepared.discard(netns)
    await netns_driver.prepared.discard(netns)

    assert [link["ifname"] for link in read_ip("link", netns=netns)] == ["lo", "eth0"]
    assert read_host_names(instance) == set()


async def test_an_interface_that_has_its_eni_makes_no_room(
    netns: Path, attached: EniPlan, netns_driver: KernelNetns
) -> None:
    await netns_driver.prepared.discard(netns)

    async with serve_caller(netns, attached.address.ip) as port:
        assert await ask_caller(None, attached.address.ip, port)
