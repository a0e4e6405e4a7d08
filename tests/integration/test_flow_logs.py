"""Flow logs of real packets between tasks whose ENIs the host routes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.conntrack import forget_flows
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.flow_logs.accounting import SWITCH
from fargate_agent.network.flow_logs.flow_logs import FlowLogs, LoggedFirewall, name_log_group
from fargate_agent.network.flow_logs.log_file import LogFile
from fargate_agent.network.forwarding import FORWARDING_FILE, Forwarding
from fargate_agent.network.names import ours_prefix
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.sysctl import ROOT
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from tests.fixtures.network import MakeEni, MakeNetns
from tests.fixtures.packets import ICMP, PORT, TCP, UDP, Address, open_socket, send
from tests.fixtures.pulls import eventually

pytestmark = pytest.mark.root

IPV6 = IPv6Network("fd00:213::/64")
ANYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
OPEN, CLOSED = "sg-0aaa", "sg-0bbb"
OUT = RulePlan(protocol="-1", cidrs=ANYWHERE)
NUMBERS = {(TCP, 4): 6, (TCP, 6): 6, (UDP, 4): 17, (UDP, 6): 17, (ICMP, 4): 1, (ICMP, 6): 58}


@dataclass(frozen=True)
class Line:
    """A record that has data."""

    eni: str
    source: str
    destination: str
    ports: tuple[str, str]
    protocol: int
    packets: int
    bytes: int
    action: str


class Logs:
    """What is in the file of flow logs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def texts(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def lines(self) -> list[Line]:
        found = []
        for text in self.texts():
            words = text.split(" ")
            assert len(words) == 14
            assert words[0] == "2"
            if words[13] == "OK":
                assert int(words[10]) <= int(words[11])
                protocol, packets, bytes_ = (int(word) for word in words[7:10])
                ports = words[5], words[6]
                eni, source, destination = words[2:5]
                counted = packets, bytes_, words[12]
                found.append(Line(eni, source, destination, ports, protocol, *counted))
        return found

    def of(self, eni: EniPlan) -> list[Line]:
        return [line for line in self.lines() if line.eni == eni.id]

    def statuses(self, eni: EniPlan) -> list[str]:
        return [text.split(" ")[13] for text in self.texts() if text.split(" ")[2] == eni.id]


@dataclass
class Task:
    eni: EniPlan
    netns: Path

    def address(self, version: int) -> Address:
        if version == 4:
            return self.eni.address.ip
        assert self.eni.ipv6_address is not None
        return self.eni.ipv6_address.ip


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "flows.log")


@pytest.fixture
def accounting_put_back() -> Iterator[None]:
    switch = ROOT / SWITCH
    before = switch.read_text()
    yield
    switch.write_text(before)


MakeFlowLogs = Callable[..., FlowLogs]


@pytest.fixture
def make_flow_logs(
    instance: str, tmp_path: Path, logs: Logs, accounting_put_back: None
) -> MakeFlowLogs:
    def make(interval_s: float = 600, findings: Findings | None = None) -> FlowLogs:
        sink = LogFile(logs.path, 1 << 20, 2)
        return FlowLogs(instance, tmp_path, sink, interval_s, findings or Findings())

    return make


@asynccontextmanager
async def serving(flow_logs: FlowLogs) -> AsyncIterator[None]:
    """Serve it in the body; behind it the last records are written."""
    job = asyncio.create_task(flow_logs.serve())
    recorder = flow_logs._recorder
    assert recorder is not None
    await eventually(lambda: job.done() or recorder.is_counting.is_set())
    yield
    job.cancel()
    await asyncio.wait([job])
    assert job.cancelled()


@pytest.fixture
async def firewall(
    instance: str, tmp_path: Path, host_left_clean: None
) -> AsyncIterator[HostFirewall]:
    settings = FirewallSettings(log_group=name_log_group(instance))
    async with HostFirewall(instance, tmp_path / FILE, settings, Findings()) as firewall:
        everything = GroupPlan(id=OPEN, ingress=(OUT,), egress=(OUT,))
        await firewall.learn([everything, GroupPlan(id=CLOSED, egress=(OUT,))])
        yield firewall
        await firewall.release()


class Cloud:
    """Attaches tasks whose flows are logged."""

    def __init__(
        self,
        make_veth: Callable[[FlowLogs], VethEni],
        make_eni: MakeEni,
        make_netns: MakeNetns,
    ) -> None:
        self._make_veth = make_veth
        self._make_eni = make_eni
        self._make_netns = make_netns
        self._numbers = iter(range(10, 100))
        self.tasks: list[tuple[VethEni, Task]] = []

    async def start(self, flow_logs: FlowLogs, group: str = OPEN) -> Task:
        eni = self._make_eni(
            security_groups=(group,),
            ipv6_address=IPv6Interface((IPV6[next(self._numbers)], 64)),
            ipv6_gateway=IPV6[1],
        )
        task = Task(eni, await self._make_netns())
        veth = self._make_veth(flow_logs)
        await veth.attach(eni, task.netns)
        self.tasks.append((veth, task))
        return task


@pytest.fixture
async def cloud(
    instance: str,
    tmp_path: Path,
    firewall: HostFirewall,
    netns_driver: KernelNetns,
    make_eni: MakeEni,
    make_netns: MakeNetns,
    test_network: IPv4Network,
) -> AsyncIterator[Cloud]:
    drivers: dict[int, VethEni] = {}

    def make(flow_logs: FlowLogs) -> VethEni:
        if id(flow_logs) not in drivers:
            drivers[id(flow_logs)] = VethEni(
                netns_driver.prepared,
                LoggedFirewall(firewall, flow_logs),
                Forwarding(tmp_path / FORWARDING_FILE, ours_prefix(instance)),
                Findings(),
            )
        return drivers[id(flow_logs)]

    cloud = Cloud(make, make_eni, make_netns)
    yield cloud
    for veth, task in cloud.tasks:
        await veth.detach(task.eni, task.netns)
    for veth in drivers.values():
        await veth.__aexit__(None, None, None)
        await veth.sweep(())


def converse(caller: Task, server: Task, version: int, sizes: tuple[int, int]) -> int:
    """Send bytes there and back by TCP; return the port of the caller."""
    address = server.address(version)
    with (
        open_socket(server.netns, address, socket.SOCK_STREAM) as listener,
        open_socket(caller.netns, address, socket.SOCK_STREAM) as connection,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), PORT))
        listener.listen()
        connection.connect((str(address), PORT))
        accepted, _ = listener.accept()
        with accepted:
            connection.sendall(bytes(sizes[0]))
            read_exactly(accepted, sizes[0])
            accepted.sendall(bytes(sizes[1]))
            read_exactly(connection, sizes[1])
        return int(connection.getsockname()[1])


def read_exactly(connection: socket.socket, size: int) -> None:
    left = size
    while left:
        left -= len(connection.recv(left))


@pytest.mark.parametrize("version", [4, 6])
async def test_a_connection_is_logged_by_both_enis_in_both_directions(
    cloud: Cloud, make_flow_logs: MakeFlowLogs, logs: Logs, version: int
) -> None:
    flow_logs = make_flow_logs()
    async with serving(flow_logs):
        server, caller = await cloud.start(flow_logs), await cloud.start(flow_logs)
        port = await asyncio.to_thread(converse, caller, server, version, (100_000, 300_000))

    there, back = (str(port), str(PORT)), (str(PORT), str(port))
    ends = str(caller.address(version)), str(server.address(version))
    for eni in (caller.eni, server.eni):
        lines = {(line.source, line.destination): line for line in logs.of(eni)}
        assert len(lines) == 2
        out, answers = lines[ends], lines[ends[::-1]]
        assert (out.ports, answers.ports) == (there, back)
        assert (out.protocol, answers.protocol) == (6, 6)
        assert (out.action, answers.action) == ("ACCEPT", "ACCEPT")
        for line, payload in ((out, 100_000), (answers, 300_000)):
            header = {4: 52, 6: 72}[version]  # with the timestamps of TCP
            extra = line.bytes - payload - header * line.packets
            assert 0 <= extra <= 3 * 20  # options of a SYN


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [TCP, UDP, ICMP])
async def test_what_is_refused_is_logged(
    cloud: Cloud, make_flow_logs: MakeFlowLogs, logs: Logs, kind: str, version: int
) -> None:
    flow_logs = make_flow_logs()
    async with serving(flow_logs):
        server, caller = await cloud.start(flow_logs, CLOSED), await cloud.start(flow_logs)
        send(caller.netns, kind, server.address(version))

    (refused,), (sent,) = logs.of(server.eni), logs.of(caller.eni)
    assert (refused.action, sent.action) == ("REJECT", "ACCEPT")
    assert refused.source == str(caller.address(version))
    assert refused.destination == str(server.address(version))
    assert refused.ports[1] == ("0" if kind == ICMP else str(PORT))
    assert refused.protocol == NUMBERS[kind, version]
    assert refused.packets == 1
    header = {4: 20, 6: 40}[version]
    assert refused.bytes - header == {UDP: 8 + len(b"probe"), ICMP: 8, TCP: 40}[kind]


async def test_a_flow_counts_once_when_it_ends_and_what_it_had_before_doesnt(
    cloud: Cloud, make_flow_logs: MakeFlowLogs, logs: Logs
) -> None:
    """One agent counts half of a flow, and the next one the other half."""
    first = make_flow_logs()
    async with serving(first):
        server, caller = await cloud.start(first), await cloud.start(first)
        address = server.address(4)
        with (
            open_socket(server.netns, address, socket.SOCK_DGRAM) as receiver,
            open_socket(caller.netns, address, socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind((str(address), PORT))
            sender.connect((str(address), PORT))
            for _ in range(3):
                sender.send(b"probe")
            second = make_flow_logs(interval_s=0.2)
            await stop(first)
            second.adopt([server.eni, caller.eni])
            async with serving(second):
                for _ in range(2):
                    sender.send(b"probe")
                await eventually(lambda: total(logs.of(server.eni)) == 5)
                sender.send(b"probe")
                forget_flows([address])
                await eventually(lambda: total(logs.of(server.eni)) == 6)
                before = len(logs.statuses(server.eni))
                await eventually(lambda: len(logs.statuses(server.eni)) > before + 1)

    assert total(logs.of(server.eni)) == 6
    assert total(logs.of(caller.eni)) == 6
    assert "NODATA" in logs.statuses(server.eni)
    assert "SKIPDATA" not in logs.statuses(server.eni)


async def stop(flow_logs: FlowLogs) -> None:
    recorder = flow_logs._recorder
    assert recorder is not None
    await asyncio.to_thread(recorder.stop)


def total(lines: list[Line]) -> int:
    return sum(line.packets for line in lines if line.protocol == 17)
