"""How much of its ephemeral volume a task uses, as the file system says, while somebody asks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fargate_agent.drivers import StorageUse
from fargate_agent.errors import TaskError
from fargate_agent.plan import TaskPlan

log = logging.getLogger(__name__)

STALE_AFTER_S: Final = 1.0
MEASURE_TIMEOUT_S: Final = 10.0

Measure = Callable[[TaskPlan], Awaitable[StorageUse | None]]


@dataclass(slots=True)
class _Measured:
    """What is known of a task."""

    size: int | None = None
    """Bytes; None: nothing bounds the task, or it couldn't be asked."""
    stale_at_s: float = 0.0
    job: "asyncio.Task[None] | None" = None


class StorageMeter:
    """Knows what tasks use, from a moment ago while somebody asks."""

    def __init__(self, measure: Measure) -> None:
        """`measure` asks a file system; None: the task has no volume of its own."""
        self._measure = measure
        self._measured: dict[str, _Measured] = {}

    def known(self, task: TaskPlan) -> int | None:
        """Return what is known, in bytes; have it measured anew if that is old. Never waits."""
        entry = self._measured.setdefault(task.id, _Measured())
        clock = asyncio.get_running_loop().time
        if entry.job is None and clock() >= entry.stale_at_s:
            entry.job = asyncio.create_task(self._renew(task, entry), name=f"storage of {task.id}")
        return entry.size

    def was_measured(self, task: TaskPlan) -> bool:
        """Whether it was tried."""
        entry = self._measured.get(task.id)
        return entry is not None and entry.stale_at_s > 0

    async def bytes_of(self, task: TaskPlan, patience_s: float = 1.0) -> int | None:
        """Return how many bytes are in use; waits a while for the first measurement only."""
        size = self.known(task)
        entry = self._measured[task.id]
        if size is None and entry.job is not None:
            await asyncio.wait([entry.job], timeout=patience_s)
        return entry.size

    async def forget(self, task: TaskPlan) -> None:
        """Measure a task no more."""
        entry = self._measured.pop(task.id, None)
        if entry is not None and entry.job is not None:
            entry.job.cancel()
            await asyncio.wait([entry.job])

    async def _renew(self, task: TaskPlan, entry: _Measured) -> None:
        try:
            async with asyncio.timeout(MEASURE_TIMEOUT_S):
                use = await self._measure(task)
            entry.size = None if use is None else use.used_bytes
        except (TaskError, TimeoutError) as error:
            entry.size = None
            log.warning("task %s: its storage can't be measured: %r", task.id, error)
        finally:
            entry.stale_at_s = asyncio.get_running_loop().time() + STALE_AFTER_S
            entry.job = None
