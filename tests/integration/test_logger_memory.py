"""What a logger holds while its destination is away, and lets go of when it is back."""

from pathlib import Path

import pytest

from tests.fixtures.forward import forward_server, start_to
from tests.fixtures.loggers import DEADLINE_S, StartLogger
from tests.fixtures.machine import wait_for

MIB = 1024 * 1024
BEHIND_BYTES = 8 * MIB


def read_own_bytes(pid: int) -> int:
    """What no other process shares."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("Private_Dirty:")[2].split()[0]) * 1024


@pytest.mark.parametrize("lines_a_write", [1, 64], ids=["line-by-line", "in-bulk"])
def test_memory_of_lines_goes_back_when_they_are_sent(
    start_logger: StartLogger, lines_a_write: int
) -> None:
    text = (b"x" * 1023 + b"\n") * lines_a_write
    with forward_server() as server:
        server.stop()
        logger = start_to(start_logger, server, fluentd_async="true", max_buffer_size="16m")
        before = read_own_bytes(logger.process)
        for _ in range(BEHIND_BYTES // len(text)):
            logger.write(text)
        wait_for(
            lambda: read_own_bytes(logger.process) > before + BEHIND_BYTES * 3 // 4,
            "the lines to be held",
            DEADLINE_S,
        )
        server.start()
        wait_for(lambda: len(server.entries) == BEHIND_BYTES // 1024, "the lines", DEADLINE_S)

        wait_for(
            lambda: read_own_bytes(logger.process) < before + BEHIND_BYTES // 2,
            "their memory to be given back",
            DEADLINE_S,
        )
        logger.delete()
        server.drain()

    assert len(server.entries) == BEHIND_BYTES // 1024
