"""The flows that the host tracks, when an address goes from one task to another."""

import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from fargate_agent.network.conntrack import forget_flows
from fargate_agent.network.netlink import socket_in_netns
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from tests.fixtures.network import (
    OUTSIDE,
    OUTSIDER,
    MakeEni,
    MakeNetns,
    MakeVeth,
    run_ip,
)
from tests.fixtures.pulls import eventually

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

FLOWS = Path("/proc/thread-self/net/nf_conntrack")

Flows = Callable[[], list[str]]


@contextmanager
def tracking() -> Iterator[None]:
    """Have the host track flows, as it does when a packet filter asks for their state."""
    table = f"fgt{uuid.uuid4().hex[:8]}"
    rule = "{ chain c { type filter hook forward priority 0; ct state established accept; }; }"
    subprocess.run(["nft", f"table inet {table} {rule}"], check=True)
    yield
    subprocess.run(["nft", "delete", "table", "inet", table], check=True)


@pytest.fixture
async def flows(
    eni: EniPlan, netns: Path, veth: VethEni, second: tuple[EniPlan, Path], outsider: Path
) -> AsyncIterator[Flows]:
    """The flows of an ENI that is attached, and of its sibling; one of four has nothing of it."""
    if not FLOWS.exists():
        pytest.skip("the kernel doesn't show the flows it tracks")
    await veth.attach(eni, netns)
    sibling, other = second

    def read() -> list[str]:
        addresses = (f"={eni.address.ip} ", f"={sibling.address.ip} ")
        lines = FLOWS.read_text().splitlines()
        return [line for line in lines if any(one in line for one in addresses)]

    with tracking():
        with socket_in_netns(netns, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"out", (str(sibling.address.ip), 9))
            sender.sendto(b"to nobody of the VPC", (str(OUTSIDER), 9))
        with socket_in_netns(other, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"in", (str(eni.address.ip), 9))
            sender.sendto(b"kept", (str(OUTSIDER), 9))
        await eventually(lambda: len(read()) == 4)
        yield read


async def test_who_has_an_address_next_has_none_of_its_flows(
    eni: EniPlan,
    netns: Path,
    veth: VethEni,
    flows: Flows,
    make_eni: MakeEni,
    make_netns: MakeNetns,
) -> None:
    """A datagram of one of them got to the next task that had the address."""
    successor, other = make_eni(address=eni.address), await make_netns()
    await veth.detach(eni, netns)

    await veth.attach(successor, other)

    (kept,) = flows()
    assert f"={OUTSIDER} " in kept
    await veth.detach(successor, other)


async def test_flows_of_many_are_forgotten_at_once_and_those_of_others_stay(
    eni: EniPlan, netns: Path, veth: VethEni, flows: Flows
) -> None:
    await veth.detach(eni, netns)
    await eventually(lambda: len(flows()) == 1)

    sibling = IPv4Address(flows()[0].partition("src=")[2].split()[0])
    forget_flows([sibling, *(OUTSIDE[place] for place in range(4))])

    assert flows() == []


async def test_the_next_agent_forgets_flows_of_addresses_that_nobody_has(
    eni: EniPlan,
    netns: Path,
    veth: VethEni,
    flows: Flows,
    make_veth: MakeVeth,
    second: tuple[EniPlan, Path],
) -> None:
    """The one before has taken the route back, and died."""
    run_ip("route", "del", str(eni.address.ip))

    tasks = (netns, second[1])
    await make_veth().sweep([one.name.removeprefix("fargate-") for one in tasks])

    (kept,) = flows()
    assert f"={OUTSIDER} " in kept
    await veth.detach(eni, netns)
