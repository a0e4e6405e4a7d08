"""json-file with the options that Docker's driver has: compression, labels, environment, tag."""

import asyncio
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.local.logs import read_logs
from tests.fixtures.loggers import (
    CONTAINER_ID,
    DEADLINE_S,
    StartLogger,
    read_records,
    render_flags,
    running_loggers,
)
from tests.fixtures.machine import wait_for

LABELS = json.dumps({"team": "blue", "com.example.tier": "web", "other": "x"})
ENV = json.dumps({"STAGE": "prod", "APP_MODE": "fast", "OTHER": 'a "quoted"\nvalue'})
RANDOM_LINE_BYTES = 500


@pytest.fixture
def start_logger() -> Iterator[StartLogger]:
    with running_loggers() as start:
        yield start


def read_attributes(path: Path) -> object:
    (record,) = read_records(path)
    assert list(record) == ["log", "stream", *(["attrs"] if "attrs" in record else []), "time"]
    return record.get("attrs")


def make_lines(count: int) -> list[str]:
    """Lines that don't get much smaller."""
    source = random.Random(5)
    return [f"{number} {source.randbytes(RANDOM_LINE_BYTES // 2).hex()}" for number in range(count)]


async def read_all(directory: Path) -> list[str]:
    ended = asyncio.Event()
    ended.set()
    return [line.log.removesuffix("\n") async for line in read_logs(directory, ended=ended)]


@pytest.mark.parametrize(
    ("flags", "attributes"),
    [
        pytest.param({"json_file_labels": "team,none"}, {"team": "blue"}, id="labels"),
        pytest.param(
            {"json_file_labels_regex": "^com\\."}, {"com.example.tier": "web"}, id="labels-regex"
        ),
        pytest.param(
            {"json_file_env": "OTHER,STAGE"},
            {"OTHER": 'a "quoted"\nvalue', "STAGE": "prod"},
            id="env",
        ),
        pytest.param({"json_file_env_regex": "^APP_"}, {"APP_MODE": "fast"}, id="env-regex"),
        pytest.param(
            {"json_file_tag": "{{.Name}}/{{.ID}}"}, {"tag": f"web/{CONTAINER_ID[:12]}"}, id="tag"
        ),
        pytest.param(
            {"json_file_env": "STAGE", "json_file_labels": "team", "json_file_tag": "t"},
            {"STAGE": "prod", "tag": "t", "team": "blue"},
            id="all",
        ),
        pytest.param({"json_file_env": "NONE"}, None, id="nothing-is-chosen"),
        pytest.param({}, None, id="nothing-is-asked-for"),
    ],
)
def test_records_have_the_attributes_that_the_options_choose(
    start_logger: StartLogger, tmp_path: Path, flags: dict[str, str], attributes: object
) -> None:
    path = tmp_path / "web.log"
    logger = start_logger(
        *render_flags(log_path=path, container_labels=LABELS, container_env=ENV, **flags)
    )

    logger.write(b"hello\n")

    assert logger.finish() == 0
    assert read_attributes(path) == attributes


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        pytest.param({"max_size": "ten"}, "invalid size: 'ten'", id="size"),
        pytest.param(
            {"max_size": "9" * 400, "compress": "false"}, "invalid size: '999", id="endless-size"
        ),
        pytest.param({"max_file": "0"}, "max-file cannot be less than 1", id="files"),
        pytest.param({"what": "x"}, "unknown flag: --what", id="unknown-flag"),
        pytest.param(
            {"compress": "true", "max_size": "1k"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
            id="compress-of-one-file",
        ),
        pytest.param(
            {"compress": "true", "max_file": "2"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
            id="compress-of-endless-files",
        ),
        pytest.param({"compress": "very"}, "invalid value for compress: 'very'", id="compress"),
        pytest.param(
            {"json_file_labels": "a", "container_labels": "[]"},
            "container-labels: expected a JSON object of strings",
            id="labels",
        ),
        pytest.param(
            {"json_file_env_regex": "("}, "invalid regular expression '('", id="expression"
        ),
        pytest.param({"json_file_tag": "{{.What}}"}, "unsupported log tag '{{.What}}'", id="tag"),
    ],
)
def test_wrong_options_are_told_before_the_container_starts(
    start_logger: StartLogger, tmp_path: Path, flags: dict[str, str], fault: str
) -> None:
    told = tmp_path / "fault"

    logger = start_logger(*render_flags(log_path=tmp_path / "web.log", fault_path=told, **flags))

    assert logger.ready == b""
    assert logger.wait() == 1
    assert told.read_text().startswith(fault)
    assert told.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("flag", ["log-path", "fault-path", "max-size"])
def test_value_that_looks_like_a_flag_is_a_value(
    start_logger: StartLogger, tmp_path: Path, flag: str
) -> None:
    path, elsewhere = tmp_path / "web.log", tmp_path / "elsewhere"

    logger = start_logger(
        *render_flags(log_path=path, json_file_tag=f"--{flag}={elsewhere}", json_file_labels="--x")
    )
    logger.write(b"hello\n")

    assert logger.finish() == 0
    assert read_attributes(path) == {"tag": f"--{flag}={elsewhere}"}
    assert not elsewhere.exists()


@pytest.mark.parametrize("flags", [{"max_size": "ten"}, {"json_file_tag": "{{.What}}"}])
def test_what_another_user_links_is_not_written_to(
    start_logger: StartLogger, tmp_path: Path, flags: dict[str, str]
) -> None:
    precious, told = tmp_path / "precious", tmp_path / "fault"
    precious.write_text("precious")
    told.symlink_to(precious)

    logger = start_logger(*render_flags(log_path=tmp_path / "web.log", fault_path=told, **flags))

    assert logger.wait() == 1
    assert precious.read_text() == "precious"
    assert told.read_text()
    assert not told.is_symlink()


async def test_rotated_files_are_compressed_and_read_back_with_nothing_missing(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    lines = make_lines(2000)
    logger = start_logger(
        *render_flags(log_path=tmp_path / "web.log", max_size="100k", max_file=20, compress="true")
    )

    logger.write("".join(f"{line}\n" for line in lines).encode())

    assert logger.finish() == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"web.log", *(f"web.log.{number}.gz" for number in range(1, len(names)))}
    assert len(names) > 10
    assert await read_all(tmp_path) == lines


def test_only_so_many_compressed_files_are_kept(start_logger: StartLogger, tmp_path: Path) -> None:
    logger = start_logger(
        *render_flags(log_path=tmp_path / "web.log", max_size="10k", max_file=3, compress="true")
    )

    logger.write("".join(f"{line}\n" for line in make_lines(500)).encode())

    assert logger.finish() == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "web.log",
        "web.log.1.gz",
        "web.log.2.gz",
    }
    newest = gzip.decompress((tmp_path / "web.log.1.gz").read_bytes())
    assert newest.count(b"\n") == newest.count(b'{"log":"') > 0


async def test_following_across_compression_shows_each_line_once(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    lines = make_lines(3000)
    logger = start_logger(
        *render_flags(log_path=tmp_path / "web.log", max_size="50k", max_file=100, compress="true")
    )
    ended = asyncio.Event()

    async def write() -> None:
        for begin in range(0, len(lines), 100):
            text = "".join(f"{line}\n" for line in lines[begin : begin + 100])
            await asyncio.to_thread(logger.write, text.encode())
        assert await asyncio.to_thread(logger.finish) == 0
        ended.set()

    async with asyncio.TaskGroup() as jobs:
        jobs.create_task(write())
        read = [line.log[:-1] async for line in read_logs(tmp_path, follow=True, ended=ended)]

    assert read == lines


def test_files_that_cannot_be_compressed_stay_as_they_are(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    (tmp_path / "web.log.1.gz.part").mkdir()
    logger = start_logger(
        *render_flags(log_path=tmp_path / "web.log", max_size="10k", max_file=3, compress="true")
    )

    logger.write("".join(f"{line}\n" for line in make_lines(30)).encode())
    wait_for((tmp_path / "web.log.1").exists, "the rotation", DEADLINE_S)

    assert logger.finish() == 0
    assert read_records(tmp_path / "web.log.1")
