"""The fluentd driver and servers that are away, slow or broken: blocking mode loses nothing."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.fixtures.forward import forward_server, print_numbers, start_to, wait_for_lines
from tests.fixtures.loggers import DEADLINE_S, StartLogger, read_text
from tests.fixtures.machine import count_unread, wait_for


def test_lines_wait_for_a_server_that_is_absent_at_the_start_in_async_mode(
    start_logger: StartLogger,
) -> None:
    with forward_server() as server:
        server.stop()
        logger = start_to(start_logger, server, fluentd_async="true")
        sent = print_numbers(logger, 0, 1000)
        server.start()
        wait_for_lines(server, 1000)
        logger.delete()
        server.drain()

    assert server.logs() == sent


@pytest.mark.parametrize("acks", ["true", "false"], ids=["with-acks", "without-acks"])
def test_nothing_is_lost_when_the_server_is_away_for_a_while(
    start_logger: StartLogger, tmp_path: Path, acks: str
) -> None:
    copy = tmp_path / "web.log"
    with forward_server() as server:
        logger = start_to(start_logger, server, fluentd_request_ack=acks, log_path=copy)
        sent = print_numbers(logger, 0, 5000)
        wait_for_lines(server, 5000)

        server.stop()
        sent += print_numbers(logger, 5000, 10_000)
        wait_for(lambda: "; trying again" in read_text(copy, "stderr"), "a report", DEADLINE_S)
        server.start()
        wait_for_lines(server, 10_000)
        logger.delete()
        server.drain()

    assert server.logs() == sent


def test_nothing_is_lost_when_connections_break_again_and_again(start_logger: StartLogger) -> None:
    with forward_server(closes_after=5000) as server:
        logger = start_to(start_logger, server)
        sent = print_numbers(logger, 0, 20_000)
        logger.delete()
        server.drain()

    arrived = Counter(server.logs())
    assert sorted(arrived) == sent
    assert server.connections > 2


def test_nothing_is_lost_when_the_server_hangs_for_a_while(start_logger: StartLogger) -> None:
    with forward_server(hangs=True) as server:
        logger = start_to(
            start_logger, server, fluentd_request_ack="true", fluentd_write_timeout="100ms"
        )
        sent = print_numbers(logger, 0, 2000)
        wait_for(lambda: server.connections >= 2, "the next attempt", DEADLINE_S)
        server.hangs = False
        wait_for_lines(server, 2000)
        logger.delete()
        server.drain()

    assert sorted(set(server.logs())) == sent


@pytest.mark.parametrize("acks", ["true", "false"], ids=["with-acks", "without-acks"])
def test_nothing_is_lost_when_the_server_is_slow(start_logger: StartLogger, acks: str) -> None:
    with forward_server(bytes_per_s=1000) as server:
        logger = start_to(
            start_logger, server, fluentd_request_ack=acks, fluentd_write_timeout="1s"
        )
        sent = print_numbers(logger, 0, 16)
        logger.delete()
        wait_for_lines(server, 16)
        server.stop()

    assert server.logs() == sent


def test_container_waits_for_a_full_server_and_loses_nothing(start_logger: StartLogger) -> None:
    with forward_server(hangs=True) as server:
        logger = start_to(start_logger, server, fluentd_request_ack="true")
        container = subprocess.Popen(["seq", "-f", "%099.0f", "100000"], stdout=logger.stdout)
        with pytest.raises(subprocess.TimeoutExpired):
            container.wait(1.5)  # 10 MB: ten times the budget
        server.hangs = False

        assert container.wait(20) == 0
        logger.delete()
        server.drain()

    assert server.logs() == [f"{number:099d}" for number in range(1, 100_001)]


def test_no_more_lines_wait_than_the_buffer_limit_says(start_logger: StartLogger) -> None:
    with forward_server() as server:
        server.stop()
        logger = start_to(
            start_logger,
            server,
            fluentd_async="true",
            fluentd_buffer_limit="1000",
            mode="non-blocking",
        )
        print_numbers(logger, 0, 5000)
        wait_for(lambda: not count_unread(logger.stdout), "the lines to be read", DEADLINE_S)
        server.start()
        wait_for_lines(server, 900)
        logger.delete()
        server.drain()

    kept = [log for log in server.logs() if not log.startswith("shim-logger: ")]
    told = sum(int(log.split()[1]) for log in server.logs() if log.startswith("shim-logger: "))
    assert 900 <= len(kept) <= 1000
    assert len(kept) + told == 5000


def test_connection_is_made_anew_at_the_interval_that_is_asked_for(
    start_logger: StartLogger,
) -> None:
    with forward_server() as server:
        logger = start_to(
            start_logger, server, fluentd_async="true", fluentd_async_reconnect_interval="100ms"
        )
        sent = 0
        while server.connections < 3:
            logger.write(b"%d\n" % sent)
            sent += 1
            wait_for_lines(server, sent)
        logger.delete()
        server.drain()

    assert server.logs() == [str(number) for number in range(sent)]
