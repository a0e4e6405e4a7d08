"""The logger with the driver `splunk`, in front of a collector that has its troubles."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.drivers import numbered, write_lines
from tests.fixtures.hec import TOKEN, HecServer, Splunk, hec_server
from tests.fixtures.loggers import StartLogger
from tests.fixtures.machine import wait_for

DEADLINE_S = 15.0


@pytest.fixture
def hec() -> Iterator[HecServer]:
    with hec_server() as server:
        yield server


@pytest.fixture
def splunk(start_logger: StartLogger, tmp_path: Path) -> Splunk:
    return Splunk(start_logger, tmp_path, "splunk")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 503}, id="503"),
        pytest.param({"status": 429}, id="429"),
        pytest.param({"hangs": True}, id="hangs and hangs up"),
    ],
)
def test_nothing_is_lost_while_the_collector_is_out_of_order(
    splunk: Splunk, hec: HecServer, fault: dict[str, Any]
) -> None:
    logger = splunk.start(hec, mode="blocking")
    for name, value in fault.items():
        setattr(hec, name, value)
    write_lines(logger, numbered(3000))

    wait_for(lambda: bool(hec.faulted), "the fault to be met", DEADLINE_S)
    hec.stop()
    hec.status, hec.hangs = 0, False
    hec.start()
    write_lines(logger, ["last"])
    logger.finish()

    assert hec.lines() == [*numbered(3000), "last"]  # sent 3001, arrived 3001, dropped 0
    assert splunk.read_losses() == []


def test_container_waits_and_nothing_is_lost_while_the_collector_is_gone(
    splunk: Splunk, hec: HecServer
) -> None:
    logger = splunk.start(hec, mode="blocking", max_buffer_size="64k")
    sent = numbered(20_000)
    writer = threading.Thread(target=write_lines, args=(logger, sent))
    hec.stop()
    writer.start()
    wait_for(lambda: bool(splunk.read_notes()), "the outage to be told", DEADLINE_S)
    waits = writer.is_alive()

    hec.start()
    writer.join(DEADLINE_S)
    logger.finish()

    assert waits
    assert hec.lines() == sent  # sent 20,000, arrived 20,000, dropped 0
    assert splunk.read_losses() == []


def test_lines_are_dropped_and_counted_in_non_blocking_mode(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(hec, mode="non-blocking", max_buffer_size="20k")
    hec.status = 500
    write_lines(logger, numbered(20_000))
    wait_for(lambda: bool(hec.faulted), "the fault to be met", DEADLINE_S)

    hec.status = 0
    logger.finish()

    kept = [line for line in hec.lines() if line.startswith("line ")]
    told = [line.split()[1] for line in hec.lines() if line.startswith("shim-logger: ")]
    assert kept[:10] == numbered(10)
    assert len(kept) + sum(map(int, told)) == 20_000
    assert sum(map(int, told)) > 0


def test_everything_arrives_at_a_collector_that_reads_1_kb_per_second(
    splunk: Splunk, hec: HecServer
) -> None:
    logger = splunk.start(hec)
    hec.bytes_per_s = 1000

    write_lines(logger, numbered(20))
    code = logger.finish()

    assert code == 0
    assert hec.lines() == numbered(20)


def test_logger_ends_in_time_and_tells_what_is_missing_when_the_collector_hangs(
    splunk: Splunk, hec: HecServer
) -> None:
    logger = splunk.start(hec)
    hec.hangs = True
    write_lines(logger, numbered(1500))
    wait_for(lambda: bool(hec.faulted), "the fault to be met", DEADLINE_S)

    logger.end()
    wait_for(logger.has_ended, "the logger to end", 12)

    assert logger.exit_code == 0
    assert hec.lines() == []
    assert "1500 lines not delivered in time" in splunk.read_losses()[0]


def test_pause_that_the_collector_asks_for_is_kept(splunk: Splunk, hec: HecServer) -> None:
    hec.retry_after = "2"
    logger = splunk.start(hec)
    hec.status = 429
    write_lines(logger, ["x"])
    wait_for(lambda: bool(hec.faulted), "the fault to be met", DEADLINE_S)
    logger.end()
    wait_for(lambda: len(hec.faulted) == 2, "the next attempt", DEADLINE_S)

    hec.status = 0
    logger.wait()

    assert hec.faulted[1] - hec.faulted[0] >= 1.9
    assert hec.lines() == ["x"]


def test_event_that_is_refused_is_left_out_and_told(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(hec)
    hec.bad = "line 7"

    write_lines(logger, numbered(20))
    logger.finish()

    assert hec.lines() == [line for line in numbered(20) if line != "line 7"]
    notes = splunk.read_notes()
    assert "400" in notes[0]
    assert "Invalid data format" in notes[0]
    assert "1 refused by the destination" in notes[-1]


def test_only_the_refused_event_is_left_out_where_blank_lines_are(
    splunk: Splunk, hec: HecServer
) -> None:
    logger = splunk.start(hec, splunk_format="raw", splunk_tag=" ")
    hec.bad = "line 2"

    write_lines(logger, ["line 0", "", "line 1", " ", "line 2", "line 3"])
    logger.finish()

    assert [event["event"] for event in hec.events] == ["line 0", "line 1", "line 3"]


def test_requests_become_smaller_when_they_are_too_large(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(hec)
    hec.max_bytes = 10_000
    sent = numbered(1000)
    sent[500] = "x" * 12_000

    write_lines(logger, sent)
    logger.finish()

    assert hec.lines() == sent[:500] + sent[501:]
    assert "413" in splunk.read_notes()[0]
    assert "1 refused by the destination" in splunk.read_notes()[-1]


def test_invalid_token_is_told_and_nothing_is_lost(splunk: Splunk, hec: HecServer) -> None:
    hec.token = "another"
    logger = splunk.start(hec)
    write_lines(logger, numbered(5))
    wait_for(lambda: bool(splunk.read_notes()), "the fault to be told", DEADLINE_S)

    hec.token = TOKEN
    logger.finish()

    assert "403" in splunk.read_notes()[0]
    assert "Invalid token" in splunk.read_notes()[0]
    assert TOKEN not in splunk.copy.read_text()
    assert hec.lines() == numbered(5)


def test_acknowledged_events_are_asked_for_until_they_are_indexed(splunk: Splunk) -> None:
    with hec_server(acknowledges=True, indexes=False) as hec:
        logger = splunk.start(hec, splunk_index_acknowledgment="true")
        write_lines(logger, numbered(1500))
        wait_for(lambda: _count_asked(hec) >= 3, "the logger to ask", DEADLINE_S)

        hec.indexes = True
        code = logger.finish()

        assert code == 0
        assert hec.lines() == numbered(1500)
        assert splunk.read_losses() == []


def test_events_that_are_not_indexed_in_time_are_sent_again(splunk: Splunk) -> None:
    with hec_server(acknowledges=True, indexes=False) as hec:
        logger = splunk.start(hec, splunk_index_acknowledgment="true", splunk_ack_timeout="1s")
        write_lines(logger, numbered(5))
        wait_for(lambda: len(hec.events) >= 10, "the events to come again", DEADLINE_S)

        hec.indexes = True
        code = logger.finish()

        assert code == 0
        assert hec.lines()[:10] == numbered(5) * 2
        assert splunk.read_losses() == []


def _count_asked(hec: HecServer) -> int:
    return len([path for _, path, _ in hec.requests if "/ack?channel=" in path])
