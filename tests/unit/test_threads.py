"""Blocking calls in threads, which are cancelled."""

import asyncio
import threading

import pytest

from fargate_agent import threads
from fargate_agent.task.runner import current_task
from fargate_agent.threads import in_thread


async def test_cancellation_waits_for_the_end_of_the_call() -> None:
    called, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        called.set()
        may_end.wait(60)
        ended.set()

    job = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(called.wait, 60)
    job.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await job

    assert ended.is_set()


async def test_call_that_hangs_is_given_up_after_a_cancellation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "GIVEN_UP_AFTER_S", 0.01)
    called, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        called.set()
        may_end.wait(60)

    job = asyncio.create_task(in_thread(hang))
    await asyncio.to_thread(called.wait, 60)
    job.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await job
        assert not may_end.is_set()
    finally:
        may_end.set()

    assert "hang was cancelled and hangs" in caplog.text


async def test_log_of_a_call_knows_its_task() -> None:
    token = current_task.set("a")
    try:
        assert await in_thread(current_task.get) == "a"
    finally:
        current_task.reset(token)
