"""Flow logs of real ENIs: lines about packets that passed and packets that were refused."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.flowlogs.collector import Collector
from fargate_agent.network.flowlogs.destination import Destination, DestinationError
from fargate_agent.network.flowlogs.service import (
    FlowLogs,
    switch_accounting_back,
    switch_accounting_on,
)
from fargate_agent.network.names import log_group_number
from fargate_agent.plan.security_groups import RulePlan
from tests.fixtures.firewall import ANYWHERE, OTHER, SAME, Cloud, Task, from_group, group
from tests.fixtures.packets import ICMP, PORT, UDP, open_socket, send
from tests.fixtures.pulls import eventually

pytestmark = pytest.mark.root

ACCOUNT = "000000000000"


@pytest.fixture
def firewall(real_firewall: HostFirewall) -> HostFirewall:
    """What ENIs of this module are behind."""
    return real_firewall


class Lines(Destination):
    """Keeps the fields of all lines."""

    def __init__(self) -> None:
        self.kept: list[list[str]] = []
        self.fails = 0

    async def write(self, lines: Mapping[str, Sequence[str]], at_s: int) -> None:
        if self.fails:
            self.fails -= 1
            raise DestinationError("full")
        self.kept += [line.split() for of_eni in lines.values() for line in of_eni]

    def about(self, task: Task, action: str) -> list[list[str]]:
        """Return from source to the count of packets, of lines about an ENI."""
        found = [line for line in self.kept if line[2] == task.eni.id and line[12] == action]
        assert all((line[0], line[1], line[13]) == ("2", ACCOUNT, "OK") for line in found)
        return [line[3:9] for line in found]


@pytest.fixture
def firewall_settings(instance: str) -> FirewallSettings:
    return FirewallSettings(log_group=log_group_number(instance))


class Watched:
    """Tasks whose flows are logged; an interval ends when the test wants it to."""

    def __init__(self, cloud: Cloud, instance: str, state_dir: Path) -> None:
        self.lines = Lines()
        self.findings = Findings()
        self._cloud = cloud
        collector = Collector(lambda: [task.eni for task in cloud.tasks])
        group_number = log_group_number(instance)
        self._logs = FlowLogs(collector, self.lines, group_number, 1000, state_dir, self.findings)
        self._collector = collector
        self._job: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        began = asyncio.Event()
        begin = self._collector.begin

        def note(flows: object) -> None:
            begin(flows)  # type: ignore[arg-type]
            asyncio.get_running_loop().call_soon(began.set)

        self._collector.begin = note  # type: ignore[method-assign]
        self._job = asyncio.create_task(self._logs.serve())
        async with asyncio.timeout(20):
            await began.wait()

    async def end(self) -> Lines:
        """Return the lines of the interval that the end of the agent cuts short."""
        assert self._job is not None
        await asyncio.sleep(0)  # what the kernel has handed over is read
        self._job.cancel()
        with suppress(asyncio.CancelledError):
            await self._job
        self._job = None
        return self.lines


@pytest.fixture
async def watched(cloud: Cloud, instance: str, tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(cloud, instance, tmp_path)
    yield watched
    if watched._job is not None:
        await watched.end()
    switch_accounting_back(tmp_path / "conntrack-accounting")


async def test_accepted_connection_is_counted_at_both_ends(
    cloud: Cloud, firewall: HostFirewall, watched: Watched
) -> None:
    await firewall.learn([group(SAME, from_group(SAME))])
    server, client = await cloud.start(SAME), await cloud.start(SAME)
    await watched.begin()
    address = server.address(4)
    with (
        open_socket(server.netns, address, socket.SOCK_STREAM) as listener,
        open_socket(client.netns, address, socket.SOCK_STREAM) as connection,
    ):
        listener.bind((str(address), PORT))
        listener.listen()
        connection.connect((str(address), PORT))
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"answer")
            assert connection.recv(10) == b"answer"
        port = connection.getsockname()[1]
    lines = await watched.end()

    ends = [str(client.address(4)), str(address)]
    there = [*ends, str(port), str(PORT), "6"]
    back = [*reversed(ends), str(PORT), str(port), "6"]
    for task in (server, client):
        found = {tuple(line[:5]): int(line[5]) for line in lines.about(task, "ACCEPT")}
        assert found.keys() == {tuple(there), tuple(back)}
        assert all(3 <= packets <= 8 for packets in found.values())
        assert lines.about(task, "REJECT") == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [UDP, ICMP])
async def test_what_the_receiver_refuses_was_accepted_of_the_sender(
    cloud: Cloud, firewall: HostFirewall, watched: Watched, kind: str, version: int
) -> None:
    await firewall.learn([group(SAME), group(OTHER)])
    server, client = await cloud.start(SAME), await cloud.start(OTHER)
    await watched.begin()
    for _ in range(3):
        assert not server.hears(client, kind, version)
    await eventually(lambda: bool(watched._collector._window._enis))
    lines = await watched.end()

    refused, sent = lines.about(server, "REJECT"), lines.about(client, "ACCEPT")
    protocol = {(UDP, 4): "17", (UDP, 6): "17", (ICMP, 4): "1", (ICMP, 6): "58"}[kind, version]
    ends = [str(client.address(version)), str(server.address(version))]
    assert {(line[0], line[1], line[4]) for line in refused} == {(*ends, protocol)}
    assert sum(int(line[5]) for line in refused) == 3
    assert sorted(refused) == sorted(sent)
    assert lines.about(client, "REJECT") == []


async def test_what_no_egress_rule_allows_is_refused_to_the_sender(
    cloud: Cloud, firewall: HostFirewall, watched: Watched
) -> None:
    await firewall.learn([group(SAME, egress=())])
    client, server = await cloud.start(SAME), await cloud.start()
    await watched.begin()
    address = server.address(4)
    send(client.netns, UDP, address)
    await eventually(lambda: bool(watched._collector._window._enis))
    lines = await watched.end()

    ((source, destination, _, port, protocol, packets),) = lines.about(client, "REJECT")
    assert (source, destination) == (str(client.address(4)), str(address))
    assert (port, protocol, packets) == (str(PORT), "17", "1")


async def test_eni_without_traffic_says_so(cloud: Cloud, watched: Watched) -> None:
    task = await cloud.start()
    await watched.begin()
    lines = await watched.end()

    assert [line[13] for line in lines.kept if line[2] == task.eni.id] == ["NODATA"]


async def test_packets_with_many_headers_are_logged(
    cloud: Cloud, firewall: HostFirewall, watched: Watched
) -> None:
    """Ports that can't be seen are 0."""
    await firewall.learn([group(SAME), group(OTHER)])
    server, client = await cloud.start(SAME), await cloud.start(OTHER)
    await watched.begin()
    address = server.address(6)
    assert isinstance(address, IPv6Address)
    with open_socket(client.netns, address, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        options = bytes([0, 0, 1, 4, 0, 0, 0, 0])
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, options)
        raw.sendto(b"\x12\x34\x00\x35\x00\x08\x00\x00", (str(address), 0))
    await eventually(lambda: bool(watched._collector._window._enis))
    lines = await watched.end()

    ((_, _, source_port, port, protocol, packets),) = lines.about(server, "REJECT")
    assert (protocol, packets) == ("17", "1")
    assert (source_port, port) == ("4660", "53")


async def test_flow_of_before_counts_from_the_beginning_of_the_interval(
    cloud: Cloud, firewall: HostFirewall, watched: Watched, tmp_path: Path
) -> None:
    await firewall.learn([group(SAME, RulePlan(protocol="udp", cidrs=ANYWHERE))])
    server, client = await cloud.start(SAME), await cloud.start(SAME)
    address = server.address(4)
    switch_accounting_on(tmp_path / "conntrack-accounting")
    with (
        open_socket(server.netns, address, socket.SOCK_DGRAM) as hearing,
        open_socket(client.netns, address, socket.SOCK_DGRAM) as speaking,
    ):
        hearing.bind((str(address), PORT))
        speaking.connect((str(address), PORT))
        for _ in range(5):
            speaking.send(b"before")
            hearing.recv(10)
        await watched.begin()
        for _ in range(2):
            speaking.send(b"after")
            hearing.recv(10)
        lines = await watched.end()

    assert [line[5] for line in lines.about(server, "ACCEPT")] == ["2"]


async def test_lines_that_were_not_taken_are_missed(
    cloud: Cloud, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fargate_agent.network.flowlogs.service.RETRY_S", 0)
    task = await cloud.start()
    await watched.begin()
    watched.lines.fails = 3
    await watched._logs._write()
    lines = await watched.end()

    assert [line[13] for line in lines.kept if line[2] == task.eni.id] == ["SKIPDATA"]
    assert [one.effect for one in watched.findings] == ["flow logs are not complete"]


def test_counting_of_flows_is_switched_back(tmp_path: Path) -> None:
    setting, marker = tmp_path / "setting", tmp_path / "marker"
    setting.write_text("0\n")
    switch_accounting_on(marker, setting)
    switch_accounting_on(marker, setting)
    assert setting.read_text() == "1"

    switch_accounting_back(marker, setting)

    assert (setting.read_text(), marker.exists()) == ("0", False)
    setting.write_text("1\n")
    switch_accounting_on(marker, setting)
    switch_accounting_back(marker, setting)
    assert setting.read_text() == "1\n"
