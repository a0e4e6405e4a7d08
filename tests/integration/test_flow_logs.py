"""Flow logs of real packets between tasks whose ENIs the host routes."""

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.conntrack import forget_flows
from fargate_agent.network.flow_logs.accounting import EVENTS, SWITCH
from fargate_agent.network.flow_logs.accounting import FILE as ACCOUNTING_FILE
from fargate_agent.network.flow_logs.flow_logs import (
    NO_ENDS,
    NO_REFUSED,
    OTHER_KIND,
    FlowLogs,
    name_log_group,
)
from fargate_agent.network.flow_logs.kernel import open_refused
from fargate_agent.network.nft.logged import BURST
from fargate_agent.network.sysctl import ROOT
from fargate_agent.plan import EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.flow_logs import (
    CLOSED,
    HOST_PORT,
    Cloud,
    Line,
    LoggedTask,
    Logs,
    MakeFlowLogs,
    serving,
)
from tests.fixtures.network import MakeEni
from tests.fixtures.outside import HERE, OUTSIDE
from tests.fixtures.packets import ICMP, PORT, TCP, UDP, open_socket, send
from tests.fixtures.pulls import eventually

pytestmark = pytest.mark.root

NUMBERS = {(TCP, 4): 6, (TCP, 6): 6, (UDP, 4): 17, (UDP, 6): 17, (ICMP, 4): 1, (ICMP, 6): 58}


def converse(caller: LoggedTask, server: LoggedTask, version: int, sizes: tuple[int, int]) -> int:
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
    logged_cloud: Cloud, make_flow_logs: MakeFlowLogs, flow_log_file: Logs, version: int
) -> None:
    flow_logs = make_flow_logs()
    async with serving(flow_logs):
        server, caller = await logged_cloud.start(flow_logs), await logged_cloud.start(flow_logs)
        port = await asyncio.to_thread(converse, caller, server, version, (100_000, 300_000))

    there, back = (str(port), str(PORT)), (str(PORT), str(port))
    ends = str(caller.address(version)), str(server.address(version))
    for eni in (caller.eni, server.eni):
        lines = {(line.source, line.destination): line for line in flow_log_file.of(eni)}
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
    logged_cloud: Cloud, make_flow_logs: MakeFlowLogs, flow_log_file: Logs, kind: str, version: int
) -> None:
    flow_logs = make_flow_logs()
    async with serving(flow_logs):
        server, caller = (
            await logged_cloud.start(flow_logs, CLOSED),
            await logged_cloud.start(flow_logs),
        )
        send(caller.netns, kind, server.address(version))

    (refused,), (sent,) = flow_log_file.of(server.eni), flow_log_file.of(caller.eni)
    assert (refused.action, sent.action) == ("REJECT", "ACCEPT")
    assert refused.source == str(caller.address(version))
    assert refused.destination == str(server.address(version))
    assert refused.ports[1] == ("0" if kind == ICMP else str(PORT))
    assert refused.protocol == NUMBERS[kind, version]
    assert refused.packets == 1
    header = {4: 20, 6: 40}[version]
    assert refused.bytes - header == {UDP: 8 + len(b"probe"), ICMP: 8, TCP: 40}[kind]


async def test_a_flow_counts_once_when_it_ends_and_what_it_had_before_doesnt(
    logged_cloud: Cloud, make_flow_logs: MakeFlowLogs, flow_log_file: Logs
) -> None:
    """One agent counts half of a flow, and the next one the other half."""
    first = make_flow_logs()
    async with serving(first):
        server, caller = await logged_cloud.start(first), await logged_cloud.start(first)
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
                await eventually(lambda: total(flow_log_file.of(server.eni)) == 5)
                sender.send(b"probe")
                forget_flows([address])
                await eventually(lambda: total(flow_log_file.of(server.eni)) == 6)
                before = len(flow_log_file.statuses(server.eni))
                await eventually(lambda: len(flow_log_file.statuses(server.eni)) > before + 1)

    assert total(flow_log_file.of(server.eni)) == 6
    assert total(flow_log_file.of(caller.eni)) == 6
    assert "NODATA" in flow_log_file.statuses(server.eni)
    assert "SKIPDATA" not in flow_log_file.statuses(server.eni)


async def stop(flow_logs: FlowLogs) -> None:
    recorder = flow_logs._recorder
    assert recorder is not None
    await asyncio.to_thread(recorder.stop)


def total(lines: list[Line]) -> int:
    return sum(line.packets for line in lines if line.protocol == 17)


@pytest.mark.parametrize("version", [4, 6])
async def test_what_leaves_the_vpc_is_logged_as_the_task_sees_it(
    logged_cloud: Cloud,
    make_flow_logs: MakeFlowLogs,
    flow_log_file: Logs,
    machine: Path,
    version: int,
) -> None:
    """Its address is the machine's out there. A private subnet lets nothing out."""
    flow_logs = make_flow_logs()
    outside = OUTSIDE[version]
    async with serving(flow_logs):
        public = await logged_cloud.start(flow_logs)
        private = await logged_cloud.start(flow_logs, nat=False)
        with open_socket(machine, outside, socket.SOCK_DGRAM) as receiver:
            receiver.bind((str(outside), PORT))
            send(public.netns, UDP, outside)
            asked, caller = receiver.recvfrom(100)
            receiver.sendto(b"answer", caller)
        assert (asked, caller[0]) == (b"probe", str(HERE[version]))
        send(private.netns, UDP, outside)

    out, answer = sorted(flow_log_file.of(public.eni), key=lambda line: line.ports[0] == str(PORT))
    assert (out.source, out.destination) == (str(public.address(version)), str(outside))
    assert (answer.source, answer.destination) == (str(outside), str(public.address(version)))
    assert out.ports == answer.ports[::-1]
    header = {4: 28, 6: 48}[version]
    assert (out.bytes, answer.bytes) == (header + len(b"probe"), header + len(b"answer"))
    (refused,) = flow_log_file.of(private.eni)
    assert (refused.action, refused.destination) == ("REJECT", str(outside))


async def test_the_ports_of_the_host_are_logged_as_they_are_open(
    logged_cloud: Cloud, make_flow_logs: MakeFlowLogs, flow_log_file: Logs
) -> None:
    flow_logs = make_flow_logs()
    async with serving(flow_logs):
        task = await logged_cloud.start(flow_logs)
        send(task.netns, UDP, task.eni.gateway, HOST_PORT)
        send(task.netns, UDP, task.eni.gateway, HOST_PORT + 1)

    found = {(line.ports[1], line.action) for line in flow_log_file.of(task.eni)}
    assert {(str(HOST_PORT), "ACCEPT"), (str(HOST_PORT + 1), "REJECT")} <= found


async def test_headers_that_hide_the_ports_hide_no_packet(
    logged_cloud: Cloud, make_flow_logs: MakeFlowLogs, flow_log_file: Logs
) -> None:
    flow_logs = make_flow_logs()
    async with serving(flow_logs):
        server = await logged_cloud.start(flow_logs, CLOSED)
        caller = await logged_cloud.start(flow_logs)
        address = server.address(6)
        options = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 39 + bytes([17, 0, 1, 4, 0, 0, 0, 0])
        datagram = struct.pack("!HHHH", 1234, PORT, 8, 0)
        with open_socket(caller.netns, address, socket.SOCK_RAW, 60) as raw:
            raw.sendto(options + datagram, (str(address), 0))

    (refused,) = flow_log_file.of(server.eni)
    assert (refused.action, refused.protocol, refused.ports) == ("REJECT", 60, ("-", "-"))
    assert refused.bytes == 40 + len(options + datagram)


async def test_an_eni_that_is_flooded_hides_no_other(
    logged_cloud: Cloud, make_flow_logs: MakeFlowLogs, flow_log_file: Logs
) -> None:
    flow_logs = make_flow_logs()
    async with serving(flow_logs):
        flooded, calm = [await logged_cloud.start(flow_logs, CLOSED) for _ in range(2)]
        caller = await logged_cloud.start(flow_logs)
        with open_socket(caller.netns, flooded.address(4), socket.SOCK_DGRAM) as sender:
            for port in range(1000, 4000):
                sender.sendto(b"", (str(flooded.address(4)), port))
        send(caller.netns, UDP, calm.address(4))

    statuses = flow_log_file.statuses(flooded.eni)
    assert "SKIPDATA" in statuses
    assert BURST <= statuses.count("OK") < 3000
    assert flow_log_file.statuses(calm.eni) == ["OK"]


async def test_enis_that_have_an_address_one_after_the_other_are_told_apart(
    logged_cloud: Cloud, make_flow_logs: MakeFlowLogs, flow_log_file: Logs
) -> None:
    flow_logs = make_flow_logs()
    async with serving(flow_logs):
        caller = await logged_cloud.start(flow_logs)
        enis: list[EniPlan] = []
        for packets in (1, 2):
            changes: dict[str, Any] = {"address": enis[0].address} if enis else {}
            task = await logged_cloud.start(flow_logs, **changes)
            enis.append(task.eni)
            for _ in range(packets):
                send(caller.netns, UDP, task.address(4))
            await logged_cloud.stop(task)

    sums = [
        sum(
            line.packets
            for line in flow_log_file.of(eni)
            if line.destination == str(eni.address.ip)
        )
        for eni in enis
    ]
    assert sums == [1, 2]


async def test_what_cannot_be_heard_is_found_and_the_rest_is_logged(
    logged_cloud: Cloud,
    make_flow_logs: MakeFlowLogs,
    flow_log_file: Logs,
    instance: str,
    make_eni: MakeEni,
) -> None:
    """Somebody else listens to the group; and there is a task on the LAN."""
    findings = Findings()
    flow_logs = make_flow_logs(findings=findings)
    (ROOT / EVENTS).write_text("0")
    with open_refused(name_log_group(instance)):
        async with serving(flow_logs):
            server, caller = [await logged_cloud.start(flow_logs) for _ in range(2)]
            flow_logs.adopt([make_eni(kind=EniKind.MACVLAN)])
            send(caller.netns, UDP, server.address(4))

    assert [one.what for one in findings] == [NO_REFUSED, NO_ENDS, OTHER_KIND]
    assert any(line.action == "ACCEPT" for line in flow_log_file.of(server.eni))


async def test_counting_is_switched_off_again_when_no_task_needs_it(
    logged_cloud: Cloud, make_flow_logs: MakeFlowLogs, instance: str, tmp_path: Path
) -> None:
    switch = ROOT / SWITCH
    switch.write_text("0")
    flow_logs = make_flow_logs()
    states = []
    async with serving(flow_logs):
        states.append(switch.read_text())
        task = await logged_cloud.start(flow_logs)
    states.append(switch.read_text())
    async with serving(successor := make_flow_logs()):
        successor.adopt([task.eni])
        successor.close(task.eni)
    states.append(switch.read_text())
    async with serving(make_flow_logs()):
        pass
    switch.write_text("1")
    (tmp_path / ACCOUNTING_FILE).touch()  # of an agent that was killed
    await FlowLogs(instance, tmp_path, None, 0, Findings()).serve()
    states.append(switch.read_text())

    assert [state.strip() for state in states] == ["1", "1", "0", "0"]
