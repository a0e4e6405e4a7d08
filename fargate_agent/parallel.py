"""The only ways to wait for more than one thing."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any


async def together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all side by side; the first failure cancels the others and is raised as it is.

    Failures that come while the others are being cancelled are dropped: the first one is the cause.
    """
    failures: list[BaseException] = []
    caller = asyncio.current_task()
    requests = caller.cancelling() if caller else 0
    is_cancelled_by_group = False

    async def note_failure(coroutine: Coroutine[Any, Any, None]) -> None:
        nonlocal is_cancelled_by_group
        try:
            await coroutine
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            is_cancelled_by_group |= caller is not None and caller.cancelling() == requests
            failures.append(error)
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(note_failure(coroutine))
    except BaseExceptionGroup:
        # a group that waits at its end cancels its caller, and leaves that counted: no timeout of
        # the caller would be one any more. Source: Python 3.11, asyncio/taskgroups.py
        if caller and is_cancelled_by_group:
            caller.uncancel()
        raise failures[0] from failures[0].__cause__


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
