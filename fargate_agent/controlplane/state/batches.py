"""Small changes of many callers that wait for the writer's turn, done in one transaction.

A commit waits for the disk and costs many times what a change does. So whoever gets the turn does
the changes of all who wait, and the others find theirs done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from fargate_agent.controlplane.state.session import Session

MAX_BATCH: Final = 64
"""Changes in one transaction: nobody else may write meanwhile."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[Session, Sequence[Item]], Awaitable[Sequence[Result | Exception]]]
"""Does something for each of the items; returns, in their order, a result or an error for each.

An item with an error must have changed nothing.
"""


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[Result]):
    found: Result | Exception


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    outcome: _Outcome[Result] | None = None
    """None: the work isn't done yet."""
    is_alone: bool = False
    """A transaction with others has failed, and it may have been this one's fault."""


class Batches(Generic[Item, Result]):
    """Those who wait for the same work."""

    def __init__(
        self, write: Callable[[], AbstractAsyncContextManager[Session]], work: Work[Item, Result]
    ) -> None:
        self._write = write
        self._work = work
        self._waiting: list[_Waiting[Item, Result]] = []
        self._turn = asyncio.Lock()

    async def do(self, item: Item) -> Result:
        """Return the item's result when the work is on disk.

        Raises:
            Exception: the error of this item, or what the work has failed with for it alone.
            SQLAlchemyError: the database could not do it.
        """
        mine: _Waiting[Item, Result] = _Waiting(item)
        self._waiting.append(mine)
        try:
            async with self._turn:
                while mine.outcome is None:
                    await self._do_batch(mine)
        finally:
            self._waiting.remove(mine)
        if isinstance(mine.outcome.found, Exception):
            raise mine.outcome.found
        return mine.outcome.found

    async def _do_batch(self, mine: _Waiting[Item, Result]) -> None:
        batch = [mine]
        try:
            async with self._write() as session:
                if not mine.is_alone:
                    others = (waiting for waiting in self._waiting if _may_join(waiting))
                    batch = list(others)[:MAX_BATCH]
                results = await self._work(session, [waiting.item for waiting in batch])
        except BaseException as error:
            for waiting in batch:
                waiting.is_alone = True
            if batch == [mine] or not isinstance(error, Exception):
                raise
            return
        for waiting, found in zip(batch, results, strict=True):
            waiting.outcome = _Outcome(found)


def _may_join(waiting: _Waiting[Item, Result]) -> bool:
    return waiting.outcome is None and not waiting.is_alone
