"""The format of flow logs, what an interval adds up, and what of it is bounded."""

import asyncio
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import aiohttp
import pytest
from pydantic import ValidationError

from fargate_agent.aws.cloudwatch_logs import _count_rejected
from fargate_agent.findings import Findings
from fargate_agent.network.flow_logs import tracked
from fargate_agent.network.flow_logs import window as window_module
from fargate_agent.network.flow_logs.flow_logs import FlowLogs, name_log_group
from fargate_agent.network.flow_logs.log_file import LogFile
from fargate_agent.network.flow_logs.log_group import LogGroup
from fargate_agent.network.flow_logs.making import make_flow_logs
from fargate_agent.network.flow_logs.records import (
    UNKNOWN_PORT,
    Action,
    Batch,
    LoggedEni,
    Way,
)
from fargate_agent.network.flow_logs.refused import Refused, note_refused, parse_packet
from fargate_agent.network.flow_logs.tracked import Tracked, Tracking
from fargate_agent.network.flow_logs.window import Window
from fargate_agent.network.names import name_instance
from fargate_agent.setting_faults import find_faults
from fargate_agent.settings import AgentSettings, read_agent_settings
from fargate_agent.settings_network import FlowLogSettings

HERE, THERE = (IPv4Address(text).packed for text in ("172.31.16.139", "172.31.16.21"))
ENI = LoggedEni(id="eni-1235b8ca", account="123456789010", addresses=(HERE,))
OTHER = LoggedEni(id="eni-2222", account="123456789010", addresses=(THERE,))
WAY = Way(THERE, HERE, 20641, 22, 6)
BEGIN_S, END_S = 1418530010.0, 1418530070.0


def texts(batches: list[Batch]) -> list[str]:
    return [record.text for batch in batches for record in batch.records]


def end(window: Window, *enis: LoggedEni, end_s: float = END_S) -> list[str]:
    return texts(list(window.end(enis or (ENI,), end_s)))


@pytest.fixture
def counted() -> Window:
    return Window(BEGIN_S)


def add(
    window: Window,
    way: Way = WAY,
    action: Action = Action.ACCEPT,
    counted: tuple[int, int] = (20, 4249),
    between_s: tuple[float, float] = (BEGIN_S, END_S),
    eni_count: int = 1,
) -> None:
    window.add(ENI.id, action, way, counted, between_s, eni_count)


def test_records_are_as_aws_shows_them(counted: Window) -> None:
    """Source: Amazon VPC user guide, "Flow log record examples"."""
    add(counted)
    add(counted, Way(THERE, HERE, 49761, 3389, 6), Action.REJECT)
    far, near = (IPv6Address(one).packed for one in ("2001:db8:1234:a100::f105", "2001:db8::4071"))
    add(counted, Way(far, near, 0, 0, 58), between_s=(BEGIN_S + 9, END_S))

    name = f"2 {ENI.account} {ENI.id}"
    first, second, third = end(counted)
    assert first.startswith(f"{name} 172.31.16.21 172.31.16.139 20641 22 6 20 4249 1418530010 ")
    assert first.endswith(" 1418530070 ACCEPT OK")
    assert second.startswith(f"{name} 172.31.16.21 172.31.16.139 49761 3389 6 20 4249 ")
    assert second.endswith(" 1418530010 1418530070 REJECT OK")
    assert third.startswith(f"{name} 2001:db8:1234:a100::f105 2001:db8::4071 0 0 58 20 4249 ")
    assert third.endswith(" 1418530019 1418530070 ACCEPT OK")


def test_an_interval_without_data_says_so(counted: Window) -> None:
    nothing = "2 123456789010 eni-1235b8ca - - - - - - - 1418530010 1418530070 - NODATA"
    assert end(counted) == [nothing]


def test_an_interval_adds_up_and_the_next_begins_with_nothing(counted: Window) -> None:
    add(counted, counted=(1, 100), between_s=(BEGIN_S + 5, BEGIN_S + 6))
    add(counted, counted=(2, 200), between_s=(BEGIN_S - 60, BEGIN_S + 3))

    (line,) = end(counted)
    assert line.split()[8:13] == ["3", "300", "1418530010", "1418530016", "ACCEPT"]
    assert end(counted, end_s=END_S + 60)[0].endswith("1418530070 1418530130 - NODATA")


def test_an_eni_that_has_used_its_share_loses_the_rest_and_no_other_does(
    counted: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_module, "ROOM", {Action.ACCEPT: 8, Action.REJECT: 4})
    monkeypatch.setattr(window_module, "LEAST", 1)
    for port in range(10):
        for action in Action:
            add(counted, WAY._replace(source_port=port), action, eni_count=2)
    add(counted, WAY._replace(source_port=0), eni_count=2)  # known already
    counted.add(OTHER.id, Action.ACCEPT, WAY, (1, 1), (BEGIN_S, END_S), 2)

    lines = end(counted, ENI, OTHER)

    of_first = [line.split() for line in lines if ENI.id in line]
    assert [line[-2:] for line in of_first].count(["ACCEPT", "OK"]) == 4
    assert [line[-2:] for line in of_first].count(["REJECT", "OK"]) == 2
    assert [line[-1] for line in of_first].count("SKIPDATA") == 1
    assert [line.split()[8] for line in lines if OTHER.id in line] == ["1"]


def test_room_is_bounded_however_many_enis_there_are() -> None:
    for count in (0, 1, 10, 1_000, 100_000):
        share = window_module.share_of(Action.ACCEPT, count)
        assert window_module.LEAST <= share <= window_module.MOST[Action.ACCEPT]


class Flows:
    """Connection tracking as a test makes it, of one ENI."""

    def __init__(self, counted: Window) -> None:
        self.counted = counted
        self.tracking = Tracking(counted, {HERE: ENI}, lambda: 1)
        self.now_s = BEGIN_S

    def flow(self, key: int, packets: int | None) -> Tracked:
        way = Way(HERE, THERE, key, 80, 6)
        counters = None if packets is None else (packets, 100 * packets, 0, 0)
        return Tracked(bytes([key]), way, way.back(), counters)

    def ask(self, *flows: Tracked) -> None:
        self.now_s += 10
        self.tracking.begin_listing(self.now_s)
        for one in flows:
            self.tracking.note_listed(one, self.now_s)
        self.tracking.end_listing()

    def end(self, flow: Tracked) -> None:
        self.now_s += 1
        self.tracking.note_ended(flow, self.now_s)

    def packets(self) -> tuple[int, list[str]]:
        """Return how many packets were counted, and the states of the records."""
        lines = [line.split() for line in end(self.counted)]
        total = sum(int(line[8]) for line in lines if line[13] == "OK")
        return total, sorted({line[13] for line in lines})


@pytest.fixture
def flows(counted: Window) -> Flows:
    return Flows(counted)


def test_a_flow_counts_what_it_has_had_since_the_first_listing(flows: Flows) -> None:
    flows.ask(flows.flow(1, 1000))
    assert flows.packets() == (0, ["NODATA"])

    flows.ask(flows.flow(1, 1003), flows.flow(2, 5))
    assert flows.packets() == (8, ["OK"])

    flows.end(flows.flow(1, 1010))
    flows.end(flows.flow(3, 2))
    flows.ask(flows.flow(2, 5))
    assert flows.packets() == (9, ["OK"])


def test_a_flow_that_ends_while_all_are_listed_counts_once(flows: Flows) -> None:
    flows.ask()
    flows.tracking.begin_listing(flows.now_s)
    flows.end(flows.flow(1, 7))
    flows.tracking.note_listed(flows.flow(1, 7), flows.now_s)
    flows.tracking.end_listing()
    flows.ask()

    assert flows.packets() == (7, ["OK"])


def test_what_ends_before_the_first_listing_is_of_before(flows: Flows) -> None:
    flows.tracking.begin_listing(flows.now_s)
    flows.end(flows.flow(1, 7))
    flows.tracking.end_listing()

    assert flows.packets() == (0, ["NODATA"])


@pytest.mark.parametrize("packets", [None, 5])
def test_what_could_not_be_counted_is_said(flows: Flows, packets: int | None) -> None:
    """A flow without counters, or one whose end the kernel hasn't told."""
    flows.ask(flows.flow(1, packets))
    flows.ask()

    assert flows.packets() == (0, ["SKIPDATA"])


def test_counters_that_somebody_has_set_back_count_from_nothing(flows: Flows) -> None:
    flows.ask(flows.flow(1, 1000))
    flows.ask(flows.flow(1, 4))

    assert flows.packets() == (4, ["OK"])


def test_flows_that_are_too_many_are_counted_when_they_end(
    flows: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked, "KNOWN", 2)
    monkeypatch.setattr(tracked, "LEAST_KNOWN", 2)
    flows.ask()
    flows.ask(*(flows.flow(number, 1) for number in range(3)))
    assert flows.packets() == (2, ["OK", "SKIPDATA"])

    for number in range(3):
        flows.end(flows.flow(number, 2))
    flows.ask()

    assert flows.packets() == (4, ["OK"])
    assert not flows.tracking._known
    assert not flows.tracking._counts


def test_ends_are_remembered_for_seconds_only(flows: Flows) -> None:
    for number in range(200):
        flows.end(flows.flow(number, 1))

    assert len(flows.tracking._ended) <= tracked.ENDED_S + 2


def logged(packet: bytes, prefix: str = "in") -> Refused | None:
    def attribute(kind: int, data: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)

    header = bytes(4)
    text = prefix.encode() + b"\0"
    return parse_packet(4 << 8, header + attribute(10, text) + attribute(9, packet))


V6 = IPv6Address("fd00::1").packed, IPv6Address("fd00::2").packed


def packet_v6(first: int, body: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(body), first, 64) + V6[0] + V6[1] + body


@pytest.mark.parametrize(
    ("first", "body", "protocol", "ports"),
    [
        pytest.param(6, struct.pack("!HH", 5, 80), 6, (5, 80), id="tcp"),
        pytest.param(58, b"\x80\0\0\0", 58, (0, 0), id="echo"),
        pytest.param(0, b"\x11\0" + bytes(6) + b"\0\1\0\2", 17, (1, 2), id="one header before"),
        pytest.param(51, b"\x11\4" + bytes(22) + b"\0\1\0\2", 17, (1, 2), id="authentication"),
        pytest.param(44, b"\x11\0" + bytes(6), 44, (UNKNOWN_PORT, UNKNOWN_PORT), id="fragment"),
        pytest.param(
            60, b"\x3c\0" + bytes(6), 60, (UNKNOWN_PORT, UNKNOWN_PORT), id="headers without end"
        ),
        pytest.param(
            0, b"\x06\xff" + bytes(100), 6, (UNKNOWN_PORT, UNKNOWN_PORT), id="a header too long"
        ),
        pytest.param(6, b"\0", 6, (UNKNOWN_PORT, UNKNOWN_PORT), id="cut short"),
    ],
)
def test_headers_are_followed_as_far_as_they_are_there(
    first: int, body: bytes, protocol: int, ports: tuple[int, int]
) -> None:
    found = logged(packet_v6(first, body))

    assert found is not None
    assert found.way == Way(*V6, *ports, protocol)
    assert found.bytes == 40 + len(body)


def test_a_port_that_is_not_known_is_a_hyphen(counted: Window) -> None:
    add(counted, Way(*V6, UNKNOWN_PORT, UNKNOWN_PORT, 60), Action.REJECT)

    assert end(counted)[0].split()[3:8] == ["fd00::1", "fd00::2", "-", "-", "60"]


@pytest.mark.parametrize("packet", [b"", b"\x45", b"\x60" + bytes(20), b"\x00" * 60])
def test_what_is_no_packet_is_passed_over(packet: bytes) -> None:
    assert logged(packet) is None


@pytest.mark.parametrize(
    ("prefix", "lines"),
    [
        ("in", {(ENI.id, "REJECT"), (OTHER.id, "ACCEPT")}),
        ("out", {(OTHER.id, "REJECT")}),
        ("in skipped", {(ENI.id, "SKIPDATA")}),
        ("out skipped", {(OTHER.id, "SKIPDATA")}),
    ],
)
def test_a_packet_is_refused_to_one_eni_and_was_let_out_by_the_other(
    counted: Window, prefix: str, lines: set[tuple[str, str]]
) -> None:
    packet = Refused(prefix, WAY, 60)
    note_refused(packet, counted, {HERE: ENI, THERE: OTHER}, BEGIN_S, 2)

    found = [line.split() for line in end(counted, ENI, OTHER)]
    said = {(line[2], line[12] if line[13] == "OK" else line[13]) for line in found}
    assert {one for one in said if one[1] != "NODATA"} == lines


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({}, "either file or log_group"),
        ({"file": "/a", "log_group": "b", "credentials_file": "/c"}, "either file or log_group"),
        ({"log_group": "b"}, "need each other"),
        ({"file": "/a", "credentials_file": "/c"}, "need each other"),
        ({"file": "/a", "interval_s": 90}, "60 or 600"),
        ({"file": "a"}, "absolute"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(
    said: dict[str, object], text: str
) -> None:
    with pytest.raises(ValidationError, match=text):
        FlowLogSettings.model_validate(said)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ('file = "/nope/flows.log"', "file: /nope is not a directory"),
        ('log_group = "flows"\ncredentials_file = "/nope"', "credentials_file can't be read"),
    ],
)
def test_a_setting_that_names_nothing_here_is_told(tmp_path: Path, lines: str, text: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'containerd_address = "{tmp_path}/none"\n[flow_logs]\n{lines}\n')

    faults = dict(find_faults(read_agent_settings(file).settings))

    assert text in faults["flow_logs"]


async def test_records_go_where_the_settings_say(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:

        def make(**said: object) -> FlowLogs:
            settings = AgentSettings(state_dir=tmp_path, **said)  # type: ignore[arg-type]
            return make_flow_logs(settings, http, Findings())

        group = {"log_group": "flows", "credentials_file": tmp_path / "keys"}
        made = [
            await asyncio.to_thread(make, flow_logs=FlowLogSettings.model_validate(said))
            for said in ({"file": tmp_path / "flows.log"}, group)
        ]
        none = await asyncio.to_thread(make)

    assert [type(one._sink) for one in made] == [LogFile, LogGroup]
    group_number = name_log_group(await asyncio.to_thread(name_instance, tmp_path))
    assert {one.log_group for one in made} == {group_number}
    assert none.log_group is None


@pytest.mark.parametrize(
    ("info", "count"),
    [
        (None, 0),
        ({}, 0),
        ({"expiredLogEventEndIndex": 2, "tooOldLogEventEndIndex": 3}, 3),
        ({"tooNewLogEventStartIndex": 8}, 2),
        ({"tooOldLogEventEndIndex": 3, "tooNewLogEventStartIndex": 8}, 5),
        ({"tooNewLogEventStartIndex": "x"}, 0),
    ],
)
def test_events_that_a_service_has_not_taken_are_counted(info: object, count: int) -> None:
    assert _count_rejected(info, 10) == count
