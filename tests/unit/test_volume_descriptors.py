"""Calls in threads that nobody waits for any more."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from fargate_agent import threads
from fargate_agent.volumes.descriptors import in_thread_with_files


async def test_call_that_was_given_up_finds_no_other_file_at_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "GIVEN_UP_AFTER_S", 0)
    began, goes_on, ended = asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    names: list[str] = []

    def call(file: int, text: str) -> None:
        loop.call_soon_threadsafe(began.set)
        goes_on.wait(30)
        names.append(f"{Path(f'/proc/self/fd/{file}').readlink()}{text}")
        loop.call_soon_threadsafe(ended.set)

    mine, other = os.open(tmp_path / "mine", os.O_CREAT), tmp_path / "other"
    job = asyncio.create_task(in_thread_with_files(call, (mine,), "!"))
    await began.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    os.close(mine)
    reused = os.open(other, os.O_CREAT)
    goes_on.set()
    await ended.wait()
    os.close(reused)

    assert reused == mine
    assert names == [f"{tmp_path}/mine!"]
