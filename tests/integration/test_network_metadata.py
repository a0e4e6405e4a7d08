"""The way from a task to its metadata endpoint: what the task sees, and who else gets there."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.namespaces import inside, make_netns, mount_netns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EniPlan
from tests.fixtures.network import (
    MakeNetns,
    ask_caller,
    is_dropped,
    read_ip,
    run_ip,
)
from tests.fixtures.pulls import eventually

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

ENDPOINT = IPv4Address("169.254.170.2")
PORT = 80


@asynccontextmanager
async def endpoint(metadata_netns: MetadataNetns, netns: Path, name: str) -> AsyncIterator[None]:
    """Answer a task with that name and the address that it asks from."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name} {writer.get_extra_info('peername')[0]}".encode())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, sock=metadata_netns.bind(netns)):
        yield


async def test_a_task_has_the_interface_that_it_has_on_fargate(netns: Path) -> None:
    await eventually(lambda: "state UP" in run_ip("link", "show", "eth0", netns=netns))
    (link,) = read_ip("address", "show", "dev", "eth0", netns=netns)
    routes = read_ip("route", "show", "dev", "eth0", netns=netns)

    assert (link["address"], link["mtu"]) == ("0a:58:a9:fe:ac:02", 1500)
    assert set(link["flags"]) == {"BROADCAST", "MULTICAST", "NOARP", "UP", "LOWER_UP"}
    assert [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]] == [
        "169.254.172.2/22"
    ]
    assert {route["dst"] for route in routes} == {
        "169.254.169.123",
        "169.254.169.253",
        "169.254.170.2",
        "169.254.172.0/22",
    }


async def test_each_task_reaches_an_endpoint_of_its_own(
    metadata_netns: MetadataNetns, make_netns: MakeNetns
) -> None:
    tasks = [await make_netns() for _ in range(3)]
    async with AsyncExitStack() as stack:
        for number, netns in enumerate(tasks):
            await stack.enter_async_context(endpoint(metadata_netns, netns, f"task {number}"))

        answers = [await ask_caller(netns, ENDPOINT, PORT) for netns in tasks]

    assert answers == [f"task {number} 169.254.172.2" for number in range(3)]


async def test_nothing_of_it_is_on_the_host(
    metadata_netns: MetadataNetns, netns: Path, instance: str
) -> None:
    before = read_ip("link")
    async with endpoint(metadata_netns, netns, "task"):
        answer = await ask_caller(netns, ENDPOINT, PORT)

        assert answer.startswith("task")
        assert {link["ifname"] for link in read_ip("link")} <= {link["ifname"] for link in before}
        assert not [one for one in read_ip("address") if "169.254.170.2" in str(one["addr_info"])]


async def test_what_comes_for_the_endpoint_from_the_network_is_not_passed_on(
    metadata_netns: MetadataNetns, netns: Path, attached: EniPlan
) -> None:
    """So arrive frames of the host's, or somebody's, own making: to the MAC of the task."""
    (end,) = [link for link in read_ip("link") if link.get("ifalias", "").endswith(attached.id)]
    run_ip("route", "add", f"{ENDPOINT}/32", "dev", end["ifname"])
    async with endpoint(metadata_netns, netns, "task"):
        assert await is_dropped(Path("/proc/self/ns/net"), netns, ENDPOINT, PORT)
    run_ip("route", "del", f"{ENDPOINT}/32", "dev", end["ifname"])


async def test_connections_of_a_restart_get_through_after_it(
    metadata_netns: MetadataNetns, netns: Path
) -> None:
    """It takes a second: the kernel's first repetition."""
    async with endpoint(metadata_netns, netns, "agent before"):
        assert (await ask_caller(netns, ENDPOINT, PORT)).startswith("agent before")
    waiting = asyncio.create_task(ask_caller(netns, ENDPOINT, PORT))
    await asyncio.sleep(0)  # the first packet is sent in this turn of the loop

    async with endpoint(metadata_netns, netns, "agent after"):
        assert (await waiting).startswith("agent after")


async def test_the_agent_after_finds_the_way_of_each_task(
    metadata_netns: MetadataNetns, make_netns: MakeNetns, instance: str
) -> None:
    one, other = await make_netns(), await make_netns()
    successor = KernelNetns(instance, metadata_netns.path.parent, lambda: True)
    for netns in (other, one):
        await successor.ensure(netns)

    after = successor.metadata
    async with endpoint(after, one, "one"), endpoint(after, other, "other"):
        answers = [await ask_caller(netns, ENDPOINT, PORT) for netns in (one, other)]

    assert answers == ["one 169.254.172.2", "other 169.254.172.2"]


@pytest.fixture
def old_netns(tmp_path: Path, instance: str) -> Path:
    """What agents made that listened inside of the task, on a host that passes packets on."""
    netns = tmp_path / "netns" / "fargate-old"
    with make_netns() as namespace:
        mount_netns(namespace, netns)
    run_ip("link", "set", "lo", "up", "alias", f"fargate:{instance}", netns=netns)
    run_ip("address", "add", f"{ENDPOINT}/32", "dev", "lo", "scope", "host", netns=netns)
    with inside(netns):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    return netns


async def test_a_task_of_an_older_agent_is_served_in_the_new_way(
    metadata_netns: MetadataNetns, netns_driver: KernelNetns, old_netns: Path
) -> None:
    await netns_driver.ensure(old_netns)

    async with endpoint(metadata_netns, old_netns, "old"):
        assert await ask_caller(old_netns, ENDPOINT, PORT) == "old 169.254.172.2"
    with inside(old_netns):
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"
    await netns_driver.release(old_netns)


async def test_a_way_that_somebody_has_taken_away_is_made_again(
    metadata_netns: MetadataNetns, netns_driver: KernelNetns, netns: Path
) -> None:
    with metadata_netns.bind(netns):  # keeps the lost namespace alive
        subprocess.run(["umount", str(metadata_netns.path)], check=True)

        await netns_driver.ensure(netns)

        async with endpoint(metadata_netns, netns, "again"):
            assert (await ask_caller(netns, ENDPOINT, PORT)).startswith("again")


async def test_a_task_that_was_not_connected_is_refused(
    metadata_netns: MetadataNetns, netns: Path
) -> None:
    run_ip("link", "del", "eth0", netns=netns)

    with pytest.raises(OSError, match="No such device"):
        metadata_netns.bind(netns)
