"""The end-to-end cases of shim-loggers-for-containerd for json-file, and what else is hard."""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.loggers import (
    StartLogger,
    read_records,
    read_text,
    render_flags,
    running_loggers,
)

TEXT = "test-e2e-log-8a3c"
GIGABYTE = 10**9
MAX_ANONYMOUS_KB = 3_200


@pytest.fixture
def start_logger() -> Iterator[StartLogger]:
    with running_loggers() as start:
        yield start


def log(start_logger: StartLogger, written: bytes, **flags: object) -> int:
    """Log with the flags that upstream gives always; return how the logger ended."""
    logger = start_logger(*render_flags(log_driver="json-file", **flags))
    assert logger.ready == b"."
    logger.write(written)
    logger.delete()
    assert logger.exit_code is not None
    return logger.exit_code


def list_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_record_has_stream_time_and_text(start_logger: StartLogger, tmp_path: Path) -> None:
    path = tmp_path / "web.log"

    log(start_logger, TEXT.encode(), log_path=path)

    (record,) = read_records(path)
    assert (record["stream"], record["log"]) == ("stdout", TEXT)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", record["time"])


@pytest.mark.parametrize(
    ("max_size", "max_file", "lines", "files"),
    [
        pytest.param("1k", 3, 50, ["web.log", "web.log.1", "web.log.2"], id="three-of-1k"),
        pytest.param("1k", 2, 200, ["web.log", "web.log.1"], id="two-of-1k"),
        pytest.param("1m", 5, 50, ["web.log"], id="not-full"),
    ],
)
def test_files_are_as_many_as_the_size_makes_and_the_number_allows(
    start_logger: StartLogger,
    tmp_path: Path,
    max_size: str,
    max_file: int,
    lines: int,
    files: list[str],
) -> None:
    written = b"".join(b"%s line %d\n" % (TEXT.encode(), number) for number in range(lines))

    log(start_logger, written, log_path=tmp_path / "web.log", max_size=max_size, max_file=max_file)

    assert list_names(tmp_path) == files


def test_file_is_read_by_owner_and_group_alone(start_logger: StartLogger, tmp_path: Path) -> None:
    log(start_logger, TEXT.encode(), log_path=tmp_path / "web.log")

    assert stat.S_IMODE((tmp_path / "web.log").stat().st_mode) == 0o640


def test_non_blocking_mode_with_a_small_buffer_loses_nothing(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    written = b"".join(b"line %d\n" % number for number in range(4000))

    code = log(start_logger, written, log_path=path, mode="non-blocking", max_buffer_size="64k")

    assert code == 0
    assert read_text(path).encode() == written


def test_missing_directory_is_made(start_logger: StartLogger, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "web.log"

    log(start_logger, TEXT.encode(), log_path=path)

    assert read_text(path) == TEXT


def test_without_a_path_the_logger_is_never_ready(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    told = tmp_path / "fault"

    logger = start_logger(*render_flags(log_driver="json-file", fault_path=told))

    assert (logger.ready, logger.wait()) == (b"", 1)
    assert told.read_text() == "log-path is required"


def test_container_that_prints_nothing_leaves_an_empty_file(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    log(start_logger, b"", log_path=tmp_path / "web.log")

    assert (tmp_path / "web.log").read_bytes() == b""


def test_line_of_10_mb_with_anything_in_it_comes_whole(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    line = (b"\0\xff\xc3\xa4" + b"x" * 96) * 100_000

    log(start_logger, line + b"\nnext\n", log_path=path)

    assert read_text(path) == line.decode(errors="replace") + "\nnext\n"


@pytest.mark.timeout(300)  # a gigabyte
def test_all_lines_of_1_gb_arrive(start_logger: StartLogger, tmp_path: Path) -> None:
    block = (b"x" * 99 + b"\n") * 10_000
    logger = start_logger(
        *render_flags(log_path=tmp_path / "web.log", max_size="100m", max_file=100)
    )

    for _ in range(GIGABYTE // len(block)):
        logger.write(block)

    assert logger.finish() == 0
    arrived = 0
    for path in tmp_path.iterdir():
        arrived += count_lines(path)
        path.unlink()
    assert arrived == GIGABYTE // 100


def test_memory_does_not_grow_with_what_is_logged(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    block = (b"x" * 99 + b"\n") * 655
    logger = start_logger(*render_flags(log_path=tmp_path / "web.log", max_size="10m", max_file=2))

    for _ in range(3 * GIGABYTE // 10 // len(block)):
        logger.write(block)

    assert read_anonymous_kb(logger.process) < MAX_ANONYMOUS_KB
    assert logger.finish() == 0


def count_lines(path: Path) -> int:
    """Count the records; the first and the last one must be whole."""
    count = 0
    with path.open("rb") as file:
        assert json.loads(file.readline())["log"] == "x" * 99 + "\n"
        file.seek(0)
        while data := file.read(1 << 20):
            count += data.count(b"\n")
        file.seek(-1, os.SEEK_END)
        assert file.read() == b"\n"
    return count


def read_anonymous_kb(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("Anonymous:")[2].split()[0])
