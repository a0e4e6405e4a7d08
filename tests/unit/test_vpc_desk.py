"""How much one task may ask, and that what is taken for it is given back."""

import asyncio
import errno
import socket
from collections.abc import Collection
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import dns.message
import dns.name
import pytest

from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.vpc.desk import TaskDesk
from fargate_agent.vpc.pace import PER_S, SLICES_PER_S, Pace
from fargate_agent.vpc.resolver import Resolver
from fargate_agent.vpc.services import HostVpcServices
from fargate_agent.vpc.shares import Shares
from fargate_agent.vpc.upstream import Upstream
from fargate_agent.vpc.zones import Asker, Zones

ASKER = Asker(task_id="1", vpc_id="vpc-1", ranges=(), domain=dns.name.from_text("ec2.internal"))


def test_second_has_so_many_packets_whenever_it_begins() -> None:
    now_s = 0.0
    pace = Pace(lambda: now_s)
    taken_at: list[float] = []
    for tick in range(3000):
        now_s = 100 + tick / 1000
        while pace.left() > 0:
            pace.take()
            taken_at.append(now_s)

    for begin in taken_at[:: PER_S // SLICES_PER_S]:
        within = [one for one in taken_at if begin <= one < begin + 1]
        assert len(within) <= PER_S + PER_S // SLICES_PER_S
    assert len(taken_at) >= PER_S * 2


def test_pause_ends_with_the_slice() -> None:
    now_s = 5.0
    pace = Pace(lambda: now_s)
    while pace.left() > 0:
        pace.take()
    assert pace.pause_s() == pytest.approx(1 / SLICES_PER_S)

    now_s += pace.pause_s()

    assert pace.left() == PER_S // SLICES_PER_S


@pytest.mark.parametrize("turns", range(5))
async def test_share_is_given_back_by_a_desk_that_closes_at_any_moment(turns: int) -> None:
    shares = Shares(total=64)
    desk = TaskDesk(
        asker=ASKER,
        resolver=Resolver(Zones(), Upstream(tuple)),
        shares=shares,
        read_clock=lambda: None,
    )
    opened: list[socket.socket] = []

    def open_socket(kind: socket.SocketKind, _: tuple[str, int]) -> socket.socket:
        bound = socket.socket(socket.AF_INET, kind)
        bound.bind(("127.0.0.1", 0))
        opened.append(bound)
        return bound

    await desk.open(open_socket)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        query = dns.message.make_query("www.example.com", "A").to_wire()
        for _ in range(10):
            asking.sendto(query, opened[0].getsockname())
        for _ in range(turns):
            await asyncio.sleep(0)
        await desk.close()
    await asyncio.sleep(0)

    assert sum(shares.take("other") for _ in range(500)) == 64


async def test_sweep_that_the_kernel_refuses_keeps_no_agent_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Refused(MetadataNetns):
        async def keep_addresses(self, kept: Collection[IPv4Address]) -> None:
            raise NetlinkError("remove address", errno.EPERM)

    services = HostVpcServices(Refused("0", tmp_path), tmp_path / "zones.json", tuple)

    assert await services.sweep(()) == []
    assert "remove address: Operation not permitted" in caplog.text
