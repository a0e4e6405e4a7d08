"""What flow logs keep and write, without a kernel."""

import os
from pathlib import Path

import pytest

from fargate_agent.network.flowlogs import file as flow_log_file
from fargate_agent.network.flowlogs.destination import DestinationError
from fargate_agent.network.flowlogs.file import FlowLogFile
from fargate_agent.network.flowlogs.packets import read_packet
from fargate_agent.network.flowlogs.records import ACCEPT, MAX_FLOWS, REJECT, Flow, Window

ENI = "eni-1235b8ca123456789"
FLOW = Flow("172.31.16.139", "172.31.16.21", 20641, 22, 6)


def test_lines_are_those_of_version_2() -> None:
    window = Window(1418530010)
    window.eni(ENI, "123456789010").count(ACCEPT, FLOW, 20, 4249, 1418530010, 1418530070)

    ((line,),) = window.render(1418530070).values()
    assert line == (
        f"2 123456789010 {ENI} 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 "
        "1418530070 ACCEPT OK"
    )


def test_nothing_and_what_was_lost_are_told() -> None:
    window = Window(10)
    window.eni("eni-a", "1")
    assert window.render(70) == {"eni-a": ["2 1 eni-a - - - - - - - 10 70 - NODATA"]}

    window.skip()

    assert window.render(70) == {"eni-a": ["2 1 eni-a - - - - - - - 10 70 - SKIPDATA"]}


def test_one_eni_does_not_take_the_room_of_another() -> None:
    window = Window(0)
    greedy, modest = window.eni("eni-a", "1"), window.eni("eni-b", "1")
    for number in range(MAX_FLOWS + 5):
        greedy.count(ACCEPT, FLOW._replace(source_port=number), 1, 1, 0, 1)
    greedy.count(REJECT, FLOW, 1, 1, 0, 1)
    modest.count(ACCEPT, FLOW, 1, 1, 0, 1)

    lines = window.render(1)

    assert len(lines["eni-a"]) == MAX_FLOWS + 2
    assert lines["eni-a"][-1].endswith("SKIPDATA")
    assert [line.rpartition(" ")[2] for line in lines["eni-b"]] == ["OK"]


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_packet_that_was_cut_anywhere_is_read_as_far_as_it_goes(cut: int) -> None:
    packet = bytes([0x60, 0, 0, 0, 0, 28, 0, 64]) + bytes(32) + bytes([17, 0]) + bytes(6)
    packet += b"\x12\x34\x00\x35" + bytes(16)

    read = read_packet(packet[: len(packet) - cut])

    assert read is None or (read[0].protocol in {0, 17} and read[1] == 68)


def test_random_bytes_are_no_reason_to_fail() -> None:
    for _ in range(2000):
        read_packet(os.urandom(64))


async def test_file_is_for_root_and_is_turned_over(tmp_path: Path) -> None:
    file = tmp_path / "flows"
    destination = FlowLogFile(file, max_bytes=10)

    for number in range(7):
        await destination.write({ENI: [f"line {number} long"]}, 0)

    assert sorted(one.name for one in tmp_path.iterdir()) == [f"flows.{n}" for n in range(1, 5)]
    assert (tmp_path / "flows.1").read_text() == "line 6 long\n"
    assert (tmp_path / "flows.1").stat().st_mode & 0o777 == 0o600


async def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="absent/flows: No such file or directory"):
        await FlowLogFile(tmp_path / "absent" / "flows").write({ENI: ["line"]}, 0)


async def test_full_disk_leaves_no_half_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    destination = FlowLogFile(Path("/dev/full"))
    monkeypatch.setattr(flow_log_file, "MAX_FILES", 1)

    with pytest.raises(DestinationError, match="No space left on device"):
        await destination.write({ENI: ["line"]}, 0)
