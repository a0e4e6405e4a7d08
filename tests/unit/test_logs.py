import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fargate_agent.local import logs
from fargate_agent.local.logs import LogLine, prune_logs, read_logs
from local.compressor import compress

DEADLINE_S = 5.0


def set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def write(path: Path, second: float, *texts: str, stream: str = "stdout") -> None:
    moment = f"2026-01-05T10:00:{second:012.9f}Z"
    with path.open("a") as file:
        for text in texts:
            file.write(json.dumps({"log": text, "stream": stream, "time": moment}) + "\n")


def rotate(path: Path, kept: int = 2) -> None:
    for number in range(kept, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if newer.exists():
            newer.rename(older)
    path.touch()


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def read_texts(directory: Path, **options: object) -> list[str]:
    settings = {"ended": set_event(), **options}
    return [line.log async for line in read_logs(directory, **settings)]  # type: ignore[arg-type]


class Follower:
    """Reads in the background, so that a test can wait for what must come."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()

    async def read(self, directory: Path, tail: int | None) -> None:
        async for line in read_logs(directory, tail=tail, follow=True, ended=self.ended):
            self._lines.put_nowait(line.log)
        self._lines.put_nowait(None)

    async def take(self, count: int) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            return [await self._lines.get() or "(end)" for _ in range(count)]


@asynccontextmanager
async def following(directory: Path, tail: int | None = None) -> AsyncIterator[Follower]:
    follower = Follower()
    async with asyncio.TaskGroup() as jobs:
        job = jobs.create_task(follower.read(directory, tail))
        yield follower
        job.cancel()


async def test_lines_of_all_containers_come_by_time(tmp_path: Path) -> None:
    write(tmp_path / "web.log", 1, "a\n")
    write(tmp_path / "log.log", 2, "b\n")
    write(tmp_path / "web.log", 3, "c\n", stream="stderr")

    lines = [line async for line in read_logs(tmp_path, ended=set_event())]

    assert [line.log for line in lines] == ["a\n", "b\n", "c\n"]
    assert lines[2] == LogLine(
        container="web", stream="stderr", time="2026-01-05T10:00:03.000000000Z", log="c\n"
    )


async def test_one_container_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path / "web.log", 1, "a\n")
    write(tmp_path / "log.log", 2, "b\n")

    assert await read_texts(tmp_path, containers=["log"]) == ["b\n"]
    assert await read_texts(tmp_path, containers=["../web"]) == []


async def test_rotated_files_are_read_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    for number in range(12):
        write(path, number, f"{number}\n")
        rotate(path, kept=11)

    assert await read_texts(tmp_path) == [f"{number}\n" for number in range(1, 12)]


async def test_nothing_comes_from_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    assert await read_texts(tmp_path / "nothing") == []


async def test_parts_of_a_line_are_joined_by_stream(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    write(path, 1, "out ")
    write(path, 2, "err ", stream="stderr")
    rotate(path)
    write(path, 3, "more ")
    write(path, 4, "end\n", stream="stderr")
    write(path, 5, "end\n")
    write(path, 6, "never ends")

    assert await read_texts(tmp_path) == ["err end\n", "out more end\n", "never ends"]


async def test_line_of_any_length_is_read_without_holding_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_JOINED_CHARS", 8)
    write(tmp_path / "web.log", 1, "12345", "67890", "abc\n")

    assert await read_texts(tmp_path) == ["1234567890", "abc\n"]


async def test_torn_records_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    write(path, 1, "a\n")
    path.write_text(path.read_text() + '{"log":"half\n\0\0\n[]\n{"log":"no time"}\n')
    write(path, 2, "b\n")

    assert await read_texts(tmp_path) == ["a\n", "b\n"]


async def test_since_leaves_out_what_is_older(tmp_path: Path) -> None:
    write(tmp_path / "web.log", 1.9999, "old\n")
    write(tmp_path / "web.log", 2, "new\n")

    since = datetime(2026, 1, 5, 10, 0, 2, tzinfo=UTC)

    assert await read_texts(tmp_path, since=since) == ["new\n"]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        pytest.param(0, [], id="none"),
        pytest.param(3, ["log 1\n", "web 2\n", "log 2\n"], id="some"),
        pytest.param(
            9, ["web 0\n", "log 0\n", "web 1\n", "log 1\n", "web 2\n", "log 2\n"], id="too-many"
        ),
    ],
)
async def test_tail_is_counted_over_all_containers(
    tmp_path: Path, tail: int, expected: list[str]
) -> None:
    for second in range(3):
        write(tmp_path / "web.log", second, f"web {second}\n")
        write(tmp_path / "log.log", second + 0.5, f"log {second}\n")

    assert await read_texts(tmp_path, tail=tail) == expected


async def test_more_lines_than_a_batch_are_read(tmp_path: Path) -> None:
    texts = [f"{number}\n" for number in range(2 * logs.BATCH_LINES + 1)]
    write(tmp_path / "web.log", 1, *texts)

    assert await read_texts(tmp_path) == texts


async def test_follow_yields_what_is_there_and_what_comes(tmp_path: Path) -> None:
    write(tmp_path / "web.log", 1, "a\n", "b\n")

    async with following(tmp_path, tail=1) as follower:
        assert await follower.take(1) == ["b\n"]
        write(tmp_path / "web.log", 2, "c\n")
        assert await follower.take(1) == ["c\n"]
        write(tmp_path / "late.log", 3, "d\n")
        assert await follower.take(1) == ["d\n"]


async def test_follow_begins_before_there_is_a_directory(tmp_path: Path) -> None:
    async with following(tmp_path / "task") as follower:
        while not (tmp_path / "task").is_dir():
            await asyncio.sleep(0)
        write(tmp_path / "task" / "web.log", 1, "a\n")

        assert await follower.take(1) == ["a\n"]


async def test_follow_goes_on_across_rotations_when_several_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    write(path, 1, "a\n")

    async with following(tmp_path) as follower:
        assert await follower.take(1) == ["a\n"]
        write(path, 2, "b\n")
        rotate(path)
        write(path, 3, "c\n")
        rotate(path)
        write(path, 4, "d\n")
        assert await follower.take(3) == ["b\n", "c\n", "d\n"]


async def test_follow_goes_on_with_the_oldest_file_when_its_own_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    write(path, 1, "a\n")

    async with following(tmp_path) as follower:
        assert await follower.take(1) == ["a\n"]
        for second in range(2, 8):
            rotate(path)
            write(path, second, f"{second}\n")
        assert await follower.take(3) == ["5\n", "6\n", "7\n"]


async def test_follow_ends_with_the_last_line_when_the_task_has_ended(tmp_path: Path) -> None:
    write(tmp_path / "web.log", 1, "a\n")

    async with following(tmp_path) as follower:
        assert await follower.take(1) == ["a\n"]
        write(tmp_path / "web.log", 2, "b\n", "no newline")
        follower.ended.set()

        assert await follower.take(3) == ["b\n", "no newline", "(end)"]


async def test_follow_leaves_no_descriptor_open_when_the_reader_goes_away(tmp_path: Path) -> None:
    write(tmp_path / "web.log", 1, "a\n")
    async with following(tmp_path) as follower:
        await follower.take(1)
    before = count_descriptors()

    for _ in range(5):
        async with following(tmp_path) as follower:
            await follower.take(1)

    assert count_descriptors() == before


async def test_prune_removes_old_logs_of_tasks_that_are_gone(tmp_path: Path) -> None:
    for name, age_s in (("old", 7200), ("kept", 7200), ("young", 60)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "web.log", 1, "a\n")
        moment = datetime.now(UTC).timestamp() - age_s
        for path in (tmp_path / name / "web.log", tmp_path / name):
            os.utime(path, (moment, moment))

    removed = await prune_logs(tmp_path, 3600, {"kept"})

    assert removed == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "young"]


async def test_prune_has_nothing_to_do_when_nothing_was_ever_logged(tmp_path: Path) -> None:
    assert await prune_logs(tmp_path / "logs", 0, set()) == []


def compress_oldest(path: Path, keep_bytes: int | None = None) -> None:
    """Compress `<path>.1` as any program would, and cut the end off."""
    plain = path.with_name(f"{path.name}.1")
    plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes())[:keep_bytes])
    plain.unlink()


async def test_compressed_files_are_read_in_their_place(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    write(path, 1, "a\n", "half ")
    rotate(path)
    compress_oldest(path)
    path.with_name("web.log.1.gz").rename(path.with_name("web.log.2.gz"))
    write(path, 2, "end\n", "b\n")
    rotate(path)
    write(path, 3, "c\n")

    assert await read_texts(tmp_path) == ["a\n", "half end\n", "b\n", "c\n"]


async def test_compressed_file_that_is_torn_ends_where_it_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    write(path, 1, *(f"{number}\n" for number in range(1000)))
    rotate(path)
    compress_oldest(path, keep_bytes=2000)
    write(path, 2, "last\n")

    texts = await read_texts(tmp_path)

    assert texts[-1] == "last\n"
    assert texts[:-1] == [f"{number}\n" for number in range(len(texts) - 1)]


async def test_follow_goes_on_after_a_file_that_was_compressed_while_it_was_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "web.log"
    write(path, 1, "a\n")

    async with following(tmp_path) as follower:
        assert await follower.take(1) == ["a\n"]
        rotate(path)
        compress(f"{path}.1", f"{path}.1.gz")
        Path(f"{path}.1").unlink()
        write(path, 2, "b\n")
        assert await follower.take(1) == ["b\n"]
