"""The only ways to wait for more than one thing."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any


async def together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all side by side; the first failure cancels the others and is raised as it is.

    Failures that come while the others are being cancelled are dropped: the first one is the cause.
    A cancellation that comes then is raised instead of the failure. An `asyncio.TaskGroup` drops
    it, and whoever was to end goes on.
    """
    failures: list[BaseException] = []
    jobs = [asyncio.create_task(one) for one in list(coroutines)]
    for job in jobs:
        job.add_done_callback(partial(_note_failure, failures))
    cancellation = await _wait(jobs, asyncio.FIRST_EXCEPTION)
    for job in jobs:
        job.cancel()
    while not all(job.done() for job in jobs):
        cancellation = await _wait(jobs, asyncio.ALL_COMPLETED) or cancellation
    if cancellation is not None:
        raise cancellation
    if failures:
        raise failures[0] from failures[0].__cause__


def _note_failure(failures: list[BaseException], job: asyncio.Task[None]) -> None:
    error = None if job.cancelled() else job.exception()
    if error is not None:
        failures.append(error)


async def _wait(
    jobs: Collection[asyncio.Task[None]], return_when: str
) -> asyncio.CancelledError | None:
    """Wait as `asyncio.wait` does; return the cancellation that has ended this, if one has."""
    try:
        if jobs:
            await asyncio.wait(jobs, return_when=return_when)
    except asyncio.CancelledError as error:
        return error
    return None


async def first_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Return when the first of them returns; the others are cancelled. A failure is raised."""

    class _Done(Exception):  # noqa: N818 - not an error: it carries "one has ended" out of the group
        pass

    async def end_group(coroutine: Coroutine[Any, Any, None]) -> None:
        await coroutine
        raise _Done

    try:
        await together(end_group(coroutine) for coroutine in coroutines)
    except _Done:
        return


@asynccontextmanager
async def until(stop: asyncio.Future[str]) -> AsyncIterator[None]:
    """Run the body until it ends or `stop` is set, whichever comes first."""
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)

    def expire(_: asyncio.Future[str]) -> None:
        scope.reschedule(loop.time())

    try:
        async with scope:
            stop.add_done_callback(expire)
            try:
                yield
            finally:
                stop.remove_done_callback(expire)
    except TimeoutError:
        if not scope.expired():
            raise
