"""The logger `json-file` with what is around it: containerd, a full disk, a reader."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.local.logs import read_logs
from fargate_agent.logdriver.jsonfile import JsonFileDriver
from fargate_agent.plan import plan_task
from tests.fixtures.busybox import run_container
from tests.fixtures.loggers import (
    DEADLINE_S,
    PROGRAM,
    StartLogger,
    read_records,
    read_text,
    running_loggers,
)
from tests.fixtures.machine import wait_for
from tests.messages import container_json, site, task_message


@pytest.fixture
def start_logger() -> Iterator[StartLogger]:
    with running_loggers() as start:
        yield start


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.root
def test_container_goes_on_and_losses_are_told_when_the_disk_is_full(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        path = disk / "web.log"
        logger = start_logger("--log-path", str(path))

        for number in range(20_000):
            logger.write(b"line %d\n" % number)
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        logger.write(b"at last\n")
        code = logger.finish()

        records = read_records(path)
        kept = [record["log"] for record in records if record["log"].startswith("line ")]
        assert code == 0
        assert kept[:100] == [f"line {number}\n" for number in range(100)]
        assert records[-1]["log"] == "at last\n"
        lost = 20_000 - len(kept)
        losses = [record["log"] for record in records if record["log"].startswith("json-file: ")]
        assert losses[-1].endswith(" lines lost: No space left on device\n")
        assert sum(int(loss.split()[1]) for loss in losses) == lost > 0


async def test_reader_follows_the_logger_across_rotations(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path), "--max-size", "100k", "--max-file", "50")
    ended = asyncio.Event()
    sent = [f"line {number}\n" for number in range(20_000)]

    async def print_lines() -> None:
        for start in range(0, len(sent), 100):
            await asyncio.to_thread(logger.write, "".join(sent[start : start + 100]).encode())
        assert await asyncio.to_thread(logger.finish) == 0
        ended.set()

    async with asyncio.TaskGroup() as jobs:
        jobs.create_task(print_lines())
        read = [line.log async for line in read_logs(tmp_path, follow=True, ended=ended)]

    assert read == sent
    assert (tmp_path / "web.log.10").exists()


@pytest.mark.root
@pytest.mark.parametrize(
    ("terminal", "stdout", "stderr"),
    [
        pytest.param(False, "out 1\nout 2\nend", "err 1\nerr 2\n", id="pipes"),
        pytest.param(True, "out 1\r\nerr 1\r\nout 2\r\nerr 2\r\nend", "", id="terminal"),
    ],
)
async def test_everything_a_container_printed_is_logged_when_containerd_has_deleted_it(
    containerd: Containerd, tmp_path: Path, terminal: bool, stdout: str, stderr: str
) -> None:
    driver = JsonFileDriver(program=PROGRAM, max_size="10m", max_file=2)
    task = plan_task(task_message(container_json("web")), site(tmp_path))
    script = "for i in 1 2; do echo out $i; echo err $i >&2; done; printf end"
    uri = driver.uri(task, task.containers[0])

    took_s = await run_container(containerd, script, uri, terminal=terminal)

    path = task.containers[0].log_path
    if terminal:  # nobody waits for the logger of a terminal
        await asyncio.to_thread(
            wait_for, lambda: read_text(path).endswith("end"), "the last line", DEADLINE_S
        )
    assert read_text(path) == stdout
    assert read_text(path, "stderr") == stderr
    assert took_s < 2
