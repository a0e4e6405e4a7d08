"""How much of its scratch space a task uses, measured now and then while somebody asks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from fargate_agent.errors import TaskError
from fargate_agent.plan import TaskPlan

log = logging.getLogger(__name__)

STALE_AFTER_S: Final = 60.0
MEASURE_TIMEOUT_S: Final = 30.0

Measure = Callable[[TaskPlan], Awaitable[int]]
"""Returns bytes."""


@dataclass(slots=True)
class _Measured:
    """What is known of a task."""

    size: int | None = None
    """None: it couldn't be measured."""
    stale_at_s: float = 0.0
    job: "asyncio.Task[None] | None" = None


class StorageMeter:
    """Knows the sizes of tasks, none older than a minute or two while somebody asks."""

    def __init__(self, measure: Measure) -> None:
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
                entry.size = await self._measure(task)
        except (TaskError, OSError) as error:  # TimeoutError is one
            entry.size = None
            log.warning("task %s: its scratch space can't be measured: %r", task.id, error)
        finally:
            entry.stale_at_s = asyncio.get_running_loop().time() + STALE_AFTER_S
            entry.job = None
