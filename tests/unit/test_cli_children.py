import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fargate_agent.cli.failure import CliError
from fargate_agent.cli.stack.children import Child, Program

DEADLINE_S = 15


class Stage:
    """Children in one temporary directory, and what was said about them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.errors: list[CliError] = []
        self.hurry = asyncio.Event()

    @asynccontextmanager
    async def alive(self, script: str, stop_timeout_s: float = 10) -> AsyncIterator[Child]:
        """Keep a shell script alive while the body runs."""
        program = Program(
            name="child",
            argv=("/bin/sh", "-c", script),
            env=dict(os.environ),
            log=self.directory / "child.log",
            stop_timeout_s=stop_timeout_s,
        )
        child = Child(program, self.said.append, self.errors.append, self.hurry)
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as jobs:
            jobs.create_task(child.keep_alive())
            try:
                yield child
            finally:
                await child.stop()

    async def lines(self, count: int) -> list[str]:
        """What the child wrote, as soon as it is so many lines."""
        log = self.directory / "child.log"
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with suppress(FileNotFoundError):  # between one log and the next there is none
                    if len(lines := log.read_text().splitlines()) >= count:
                        return lines
                await asyncio.sleep(0.01)

    async def until_said(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not any(text in line for line in self.said):
                await asyncio.sleep(0.01)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_child_is_started_again_after_a_longer_and_longer_pause(stage: Stage) -> None:
    async with stage.alive("echo $$; exit 3") as child:
        child.settle()
        lines = await stage.lines(3)

    assert len(set(lines)) >= 3
    assert stage.said[:2] == [
        "child ended with exit code 3; starting it again in 0.5 s",
        "child ended with exit code 3; starting it again in 1 s",
    ]
    assert not stage.errors


async def test_child_that_was_killed_is_started_again(stage: Stage) -> None:
    async with stage.alive("echo $$; exec sleep 60") as child:
        child.settle()
        os.kill(int((await stage.lines(1))[0]), signal.SIGKILL)
        await stage.lines(2)

    assert stage.said == ["child was killed by SIGKILL; starting it again in 0.5 s"]


async def test_child_that_dies_before_it_is_settled_is_given_up_with_its_last_words(
    stage: Stage,
) -> None:
    async with stage.alive("echo unknown key: colour >&2; exit 1"):
        await stage.until_said("unknown key")

    assert "child: unknown key: colour" in stage.said
    assert "child ended with exit code 1, 3 times" in str(stage.errors[0])
    assert len(stage.errors) == 1


async def test_child_whose_settings_are_wrong_is_not_tried_again(stage: Stage) -> None:
    async with stage.alive("echo unknown key: colour >&2; exit 78"):
        await stage.until_said("unknown key")

    assert stage.said == ["child: unknown key: colour"]
    assert str(stage.errors[0]).startswith("child ended with exit code 78; see ")


async def test_child_whose_program_is_missing_is_given_up(stage: Stage) -> None:
    program = Program(
        name="child",
        argv=("/nowhere/at/all",),
        env={"PATH": os.environ["PATH"]},
        log=stage.directory / "child.log",
        stop_timeout_s=1,
    )

    await Child(program, stage.said.append, stage.errors.append, stage.hurry).keep_alive()

    assert stage.errors
    assert any("/nowhere/at/all" in line for line in stage.said)


async def test_child_is_asked_to_end_and_not_started_again(stage: Stage) -> None:
    async with stage.alive("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"):
        await stage.lines(1)

    assert (stage.directory / "child.log").read_text() == "up\nbye\n"
    assert stage.said == []


@pytest.mark.parametrize("hurried", [False, True])
async def test_child_that_does_not_end_is_killed(stage: Stage, hurried: bool) -> None:
    stop_timeout_s = 60 if hurried else 0.2
    async with stage.alive("trap '' TERM; echo $$; while :; do sleep 0.05; done", stop_timeout_s):
        pid = int((await stage.lines(1))[0])
        if hurried:
            stage.hurry.set()

    assert stage.said == ["child doesn't end by itself: killing it"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_child_that_is_stopped_in_a_pause_does_not_make_anyone_wait(stage: Stage) -> None:
    async with stage.alive("exit 1") as child:
        child.settle()
        await stage.until_said("in 2 s")
        async with asyncio.timeout(1):
            await child.stop()


async def test_child_s_log_of_the_run_before_is_kept_beside_the_new_one(stage: Stage) -> None:
    for word in ("first", "second", "third"):
        async with stage.alive(f"echo {word}; exec sleep 60"):
            while await stage.lines(1) != [word]:
                await asyncio.sleep(0.01)

    assert (stage.directory / "child.log").read_text() == "third\n"
    assert (stage.directory / "child.log.1").read_text() == "second\n"


async def test_child_dies_with_its_killed_parent_and_is_out_of_reach_of_its_terminal(
    tmp_path: Path,
) -> None:
    parent = f"""
import asyncio, os, pathlib
from fargate_agent.cli.stack.children import Child, Program
program = Program(name="child", argv=("/bin/sh", "-c", "echo $$; exec sleep 60"),
                  env=dict(os.environ), log=pathlib.Path({str(tmp_path / "log")!r}),
                  stop_timeout_s=1)
asyncio.run(Child(program, print, print, asyncio.Event()).keep_alive())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", parent)
    log = tmp_path / "log"
    async with asyncio.timeout(DEADLINE_S):
        while not (log.exists() and log.read_text()):
            await asyncio.sleep(0.01)
    child = int(log.read_text())
    assert os.getsid(child) == child

    process.kill()
    await process.wait()

    async with asyncio.timeout(DEADLINE_S):
        while _is_running(child):
            await asyncio.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
