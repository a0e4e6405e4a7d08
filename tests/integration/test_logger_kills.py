"""Loggers that are killed: a destination keeps what it has, and what is lost is what was held."""

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.awslogs import IMPATIENT, make_program
from tests.fixtures.drivers import Driver
from tests.fixtures.loggers import PROGRAM, Logger, StartLogger, running_loggers
from tests.fixtures.machine import count_unread, wait_for
from tests.fixtures.places import PLACES, Place

DEADLINE_S = 30.0
LINE_BYTES = 101
MAX_HELD_LINES = 3 * 64 * 1024 // LINE_BYTES
"""In the pipe, read from it, and in the buffer."""


@pytest.fixture(params=PLACES)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, driver: str) -> Iterator[Place]:
    moto = request.getfixturevalue("moto") if driver == "awslogs" else ""
    with PLACES[driver](tmp_path, moto) as made:
        yield made


@pytest.fixture
def start(tmp_path: Path, driver: str) -> Iterator[StartLogger]:
    """As every logger is started, but that awslogs doesn't wait 5 s for more lines."""
    program = make_program(tmp_path / "logger", IMPATIENT) if driver != "json-file" else PROGRAM
    with running_loggers(program) as made:
        yield made


def test_logger_that_is_killed_loses_what_it_held_and_no_more(
    start: StartLogger, tmp_path: Path, driver: str, place: Place
) -> None:
    options = {"mode": "blocking", "max-buffer-size": "64k"}
    logger = Driver(start, tmp_path, driver).run(place.flags, options)
    printed: list[bytes] = []
    container = threading.Thread(target=print_until_nobody_reads, args=(logger, printed))
    container.start()

    wait_for(lambda: len(place.read()) > 1000, "the first lines", DEADLINE_S)
    place.hold(logger)
    wait_for(Standstill(logger, printed), "the container to wait", DEADLINE_S)
    os.kill(logger.process, signal.SIGKILL)
    container.join(DEADLINE_S)
    place.go_on()

    assert logger.wait() == -signal.SIGKILL
    assert not container.is_alive()
    wait_for(
        lambda: len(place.read()) >= len(printed) - MAX_HELD_LINES, "what wasn't held", DEADLINE_S
    )
    arrived = place.read()
    assert arrived == printed[: len(arrived)]
    assert 0 < len(printed) - len(arrived) <= MAX_HELD_LINES


def print_until_nobody_reads(logger: Logger, printed: list[bytes]) -> None:
    """Print as a container does, which EPIPE tells that its logger is gone."""
    with suppress(BrokenPipeError):
        for number in itertools.count():
            logger.write(b"line %095d\n" % number)
            printed.append(b"line %095d" % number)


@dataclass
class Standstill:
    """Whether a container's pipe is full, and nothing was printed since this was last asked."""

    logger: Logger
    printed: list[bytes]
    seen: int = 0

    def __call__(self) -> bool:
        before, self.seen = self.seen, len(self.printed)
        return before == self.seen and count_unread(self.logger.stdout) > 60_000
