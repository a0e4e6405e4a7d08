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
Work = Callable[[Session, Sequence[Item]], Awaitable[Sequence[Exception | None]]]
"""Does something for each of the items; returns, in their order, what is wrong with each.

An item with which something is wrong must have changed nothing.
"""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item]):
    item: Item
    error: Exception | None = None
    is_done: bool = False
    is_alone: bool = False
    """A transaction with others has failed, and it may have been this one's fault."""


class Batches(Generic[Item]):
    """Those who wait for the same work."""

    def __init__(
        self, write: Callable[[], AbstractAsyncContextManager[Session]], work: Work[Item]
    ) -> None:
        self._write = write
        self._work = work
        self._waiting: list[_Waiting[Item]] = []
        self._turn = asyncio.Lock()

    async def do(self, item: Item) -> None:
        """Return when the work is done for this item, and on disk.

        Raises:
            Exception: what the work has returned for this item, or has failed with for it alone.
            SQLAlchemyError: the database could not do it.
        """
        mine = _Waiting(item)
        self._waiting.append(mine)
        try:
            async with self._turn:
                while not mine.is_done:
                    await self._do_batch(mine)
        finally:
            self._waiting.remove(mine)
        if mine.error is not None:
            raise mine.error

    async def _do_batch(self, mine: _Waiting[Item]) -> None:
        batch = [mine]
        try:
            async with self._write() as session:
                if not mine.is_alone:
                    others = (waiting for waiting in self._waiting if _may_join(waiting))
                    batch = list(others)[:MAX_BATCH]
                errors = await self._work(session, [waiting.item for waiting in batch])
        except BaseException as error:
            for waiting in batch:
                waiting.is_alone = True
            if batch == [mine] or not isinstance(error, Exception):
                raise
            return
        for waiting, found in zip(batch, errors, strict=True):
            waiting.error, waiting.is_done = found, True


def _may_join(waiting: _Waiting[Item]) -> bool:
    return not (waiting.is_done or waiting.is_alone)
