"""The driver awslogs before a service that fails: what was sent, what arrived, what was dropped."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.fixtures.awslogs import (
    GROUP,
    HASTY,
    IMPATIENT,
    STREAM,
    Awslogs,
    make_program,
)
from tests.fixtures.cloudwatch import CloudWatch
from tests.fixtures.loggers import DEADLINE_S, StartLogger, read_text, running_loggers
from tests.fixtures.machine import wait_for

OUTAGE_S = 2.0
"""Longer than any time-out or pause of HASTY."""
SENT = [f"line {number:06}" for number in range(20_000)]


def wait_for_puts(cloudwatch: CloudWatch, count: int) -> None:
    wait_for(lambda: cloudwatch.count("PutLogEvents") >= count, "requests", DEADLINE_S)


def test_nothing_is_lost_when_the_service_is_away_for_a_while(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_impatient: StartLogger
) -> None:
    logger = awslogs.start(start_impatient, max_buffer_size="64k")
    logger.write(b"begin\n")
    wait_for_puts(cloudwatch, 1)

    container = threading.Thread(target=logger.write, args=["\n".join(SENT).encode()])
    with cloudwatch.away():
        back_at = time.monotonic() + OUTAGE_S
        container.start()
        wait_for(lambda: time.monotonic() > back_at, "the end of the outage", DEADLINE_S)
        assert container.is_alive()  # it has to wait
    container.join(DEADLINE_S)

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == ["begin", *SENT]
    assert "connection refused; trying again" in read_text(awslogs.copy, "stderr")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((400, "ThrottlingException", "Rate exceeded"), id="throttled"),
        pytest.param((429, "TooManyRequests", ""), id="429"),
        pytest.param((500, "InternalFailure", ""), id="500"),
        pytest.param((503, "ServiceUnavailableException", ""), id="503"),
        pytest.param((400, "AccessDeniedException", "not authorized"), id="access-denied"),
        pytest.param((400, "", ""), id="nobody-knows-what"),
    ],
)
def test_nothing_is_lost_when_the_service_refuses_for_a_while(
    cloudwatch: CloudWatch,
    awslogs: Awslogs,
    start_impatient: StartLogger,
    fault: tuple[int, str, str],
) -> None:
    cloudwatch.faults = [fault] * 6
    logger = awslogs.start(start_impatient, max_buffer_size="64k")

    logger.write("\n".join(SENT).encode())

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == SENT
    told = read_text(awslogs.copy, "stderr")
    assert told.count("trying again") == 1


def test_nothing_is_lost_when_the_service_hangs_for_a_while(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_hasty: StartLogger
) -> None:
    logger = awslogs.start(start_hasty)
    cloudwatch.answering.clear()
    back_at = time.monotonic() + OUTAGE_S

    logger.write("\n".join(SENT).encode())
    wait_for(lambda: time.monotonic() > back_at, "the end of the outage", DEADLINE_S)
    cloudwatch.answering.set()

    assert logger.finish() == 0
    # What no answer comes for is sent again: here moto is slow.
    assert list(dict.fromkeys(cloudwatch.texts(GROUP, STREAM))) == SENT


def test_nothing_is_lost_when_the_service_takes_a_kilobyte_a_second(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    logger = awslogs.start(start_logger)
    cloudwatch.bytes_per_second = 1024
    began = time.monotonic()

    logger.write("\n".join(SENT[:60]).encode())

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == SENT[:60]
    assert time.monotonic() - began > 2


def test_nothing_is_lost_when_the_service_is_too_slow_for_what_is_sent(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_hasty: StartLogger
) -> None:
    logger = awslogs.start(start_hasty)
    cloudwatch.bytes_per_second = 300_000

    logger.write("\n".join(SENT[:5000]).encode())

    assert logger.finish() == 0
    assert list(dict.fromkeys(cloudwatch.texts(GROUP, STREAM))) == SENT[:5000]


def test_lines_that_find_no_room_are_counted_in_the_stream(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_impatient: StartLogger
) -> None:
    logger = awslogs.start(start_impatient, mode="non-blocking", max_buffer_size="64k")
    cloudwatch.answering.clear()

    began = time.monotonic()
    logger.write("\n".join(SENT).encode() + b"\n")
    took_s = time.monotonic() - began
    cloudwatch.answering.set()

    assert logger.finish() == 0
    texts = cloudwatch.texts(GROUP, STREAM)
    arrived = [text for text in texts if text.startswith("line ")]
    told = [re.fullmatch(r"shim-logger: (\d+) lines dropped: .*", text) for text in texts]
    dropped = sum(int(found[1]) for found in told if found)
    assert took_s < DEADLINE_S
    assert arrived == sorted(arrived)
    assert len(arrived) + dropped == len(SENT)
    assert 0 < len(arrived) < len(SENT)
    assert read_text(awslogs.copy).splitlines() == SENT


def test_logger_ends_in_time_and_counts_what_never_arrived(
    cloudwatch: CloudWatch, awslogs: Awslogs, tmp_path: Path
) -> None:
    program = make_program(tmp_path / "logger", HASTY | {"reading.pump.END_S": 1})
    with running_loggers(program) as start_logger:
        logger = awslogs.start(start_logger)
        cloudwatch.answering.clear()
        logger.write("\n".join(SENT[:100]).encode() + b"\n")
        began = time.monotonic()

        os.kill(logger.process, signal.SIGTERM)

        assert logger.finish() == 0
        assert time.monotonic() - began < 6
    assert cloudwatch.texts(GROUP, STREAM) == []
    assert "100 lines not delivered in time" in read_text(awslogs.copy, "stderr")


def test_logger_counts_exactly_what_has_not_arrived_when_only_some_of_it_has(
    cloudwatch: CloudWatch, awslogs: Awslogs, tmp_path: Path
) -> None:
    cloudwatch.sink = True
    cloudwatch.max_body_bytes = 100_000  # so that one flush is many requests
    cloudwatch.bytes_per_second = 500_000
    program = make_program(tmp_path / "logger", IMPATIENT | {"reading.pump.END_S": 1})
    with running_loggers(program) as start_logger:
        logger = awslogs.start(start_logger, mode="non-blocking", max_buffer_size="32m")
        logger.write("\n".join(SENT).encode() + b"\n")
        wait_for_puts(cloudwatch, 5)

        cloudwatch.faults = [(500, "InternalFailure", "")] * 1000

        assert logger.finish() == 0
    arrived = sum(len(body["logEvents"]) for body in cloudwatch.puts())
    told = re.search(r"(\d+) lines not delivered in time", read_text(awslogs.copy, "stderr"))
    assert told is not None
    assert 0 < arrived < len(SENT)
    assert arrived + int(told[1]) == len(SENT)


def test_events_that_the_service_will_never_take_are_counted(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_impatient: StartLogger
) -> None:
    cloudwatch.faults = [(400, "InvalidParameterException", "no")]
    logger = awslogs.start(start_impatient)

    logger.write(b"1\n2\n3\n")
    wait_for_puts(cloudwatch, 1)
    logger.write(b"4\n")

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == ["4"]
    told = read_text(awslogs.copy, "stderr")
    assert "3 events rejected: InvalidParameterException: no" in told
    assert "3 refused by the destination" in told


def test_nothing_is_lost_when_something_on_the_way_takes_only_small_requests(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_impatient: StartLogger
) -> None:
    cloudwatch.max_body_bytes = 100_000
    logger = awslogs.start(start_impatient)

    logger.write(b"x" * 150_000 + b"\n" + "\n".join(SENT).encode())

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == SENT
    assert "1 events rejected: status code 413" in read_text(awslogs.copy, "stderr")


def test_events_of_the_wrong_time_are_counted(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    rejected = {"tooOldLogEventEndIndex": 2, "tooNewLogEventStartIndex": 4}
    cloudwatch.answers = [{"rejectedLogEventsInfo": rejected}]
    logger = awslogs.start(start_logger)

    logger.write(b"1\n2\n3\n4\n5\n")

    assert logger.finish() == 0
    told = read_text(awslogs.copy, "stderr")
    assert "3 events rejected: 2 too old, 1 too new" in told
    assert "3 refused by the destination" in told


def test_stream_that_somebody_deletes_is_created_again(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_impatient: StartLogger
) -> None:
    logger = awslogs.start(start_impatient)
    cloudwatch.logs.delete_log_stream(logGroupName=GROUP, logStreamName=STREAM)

    logger.write("\n".join(SENT).encode())

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == SENT
