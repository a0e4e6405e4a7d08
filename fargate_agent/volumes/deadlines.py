"""Calls of file systems that may never answer: of a server that is gone, of an automounter."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_THREAD: Final = "file system"
"""What threads that make such calls are named."""


async def with_deadline(work: Callable[[], T], timeout_s: float, undo: Callable[[T], None]) -> T:
    """Call something that may never return, in a thread of its own.

    If it succeeds after the deadline, or after this was cancelled, `undo` gets what it returned.

    Raises:
        TimeoutError: it didn't return in time.
    """
    call = _Call(work, undo)
    threading.Thread(target=call.run, name=_THREAD, daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            return await call.result()
    except (TimeoutError, asyncio.CancelledError):
        call.abandon()
        raise


class _Call(Generic[T]):
    """A call whose result is either taken or undone."""

    def __init__(self, work: Callable[[], T], undo: Callable[[T], None]) -> None:
        self._work, self._undo = work, undo
        self._loop, self._ready = asyncio.get_running_loop(), asyncio.Event()
        self._lock, self._abandoned = threading.Lock(), False
        self._results: list[T] = []
        self._failure: Exception | None = None

    def run(self) -> None:
        """Make the call, in its thread."""
        try:
            result = self._work()
        except Exception as error:  # noqa: BLE001 - raised where this is awaited
            self._failure = error
        else:
            with self._lock:
                is_late = self._abandoned
                self._results.append(result)
            if is_late:
                self._undo(result)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ready.set)

    async def result(self) -> T:
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self._results[0]

    def abandon(self) -> None:
        """Have the result undone, be it there already or not; waits for nothing."""
        with self._lock:
            self._abandoned = True
            done = list(self._results)
        for result in done:
            threading.Thread(target=self._undo, args=(result,), name=_THREAD, daemon=True).start()
