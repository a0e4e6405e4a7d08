"""What comes too late is undone."""

import asyncio
import threading

import pytest

from fargate_agent.volumes.deadlines import with_deadline


async def test_what_succeeds_after_the_deadline_is_undone() -> None:
    finish, undone = threading.Event(), threading.Event()

    def work() -> str:
        finish.wait()
        return "mount"

    def undo(result: str) -> None:
        assert result == "mount"
        undone.set()

    with pytest.raises(TimeoutError):
        await with_deadline(work, 0.01, undo)
    assert not undone.is_set()
    finish.set()
    assert await asyncio.to_thread(undone.wait, 10)


async def test_what_succeeds_after_a_cancellation_is_undone() -> None:
    begun, finish, undone = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        finish.wait()

    job = asyncio.create_task(with_deadline(work, 60, lambda _: undone.set()))
    await asyncio.to_thread(begun.wait)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    finish.set()
    assert await asyncio.to_thread(undone.wait, 10)


async def test_what_fails_says_why() -> None:
    def work() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="^no$"):
        await with_deadline(work, 60, lambda _: None)
