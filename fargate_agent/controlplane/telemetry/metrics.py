"""`GET /metrics` of the control plane, for Prometheus."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent import __version__
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.model import LIVE, Task
from fargate_agent.measures.exposition import Family, render

COUNT_EVERY_S: Final = 10
"""How often tasks are counted at most, whoever asks."""


class PlaneMetrics:
    """Renders the metrics for whoever asks."""

    def __init__(
        self, plane: Plane, count_sessions: Callable[[], int], log_lines: Mapping[str, int]
    ) -> None:
        """`count_sessions` says how many agents are connected to this process."""
        self._plane = plane
        self._count_sessions = count_sessions
        self._log_lines = log_lines
        self._tasks: dict[str, int] = {}
        self._counted_at_s = float("-inf")
        self._turn = asyncio.Lock()

    async def render(self) -> bytes:
        """Return the text; without tasks while the database doesn't answer."""
        return await asyncio.to_thread(render, list(self._families(await self._count_tasks())))

    async def _count_tasks(self) -> dict[str, int]:
        """Return how many tasks there are by status, but for those that have stopped."""
        async with self._turn:
            if time.monotonic() - self._counted_at_s > COUNT_EVERY_S:
                counted = select(Task.last_status, func.count()).where(LIVE)
                try:
                    async with self._plane.store.read() as session:
                        rows = await session.execute(counted.group_by(Task.last_status))
                    self._tasks = {row[0]: row[1] for row in rows}
                except SQLAlchemyError:
                    self._tasks = {}
                self._counted_at_s = time.monotonic()
            return self._tasks

    def _families(self, tasks: Mapping[str, int]) -> Iterator[Family]:
        figures, store = self._plane.figures, self._plane.store
        yield Family(
            name="fargate_control_plane_build_info",
            kind="gauge",
            help="The version that runs; always 1.",
            labels=("version",),
            values={(__version__,): 1},
        )
        yield Family(
            name="fargate_control_plane_requests",
            kind="counter",
            help="Requests that were answered, by operation and status of HTTP.",
            labels=("operation", "status"),
            values={labels: float(count) for labels, count in figures.requests.items()},
        )
        yield Family(
            name="fargate_control_plane_request_seconds",
            kind="histogram",
            help="How long they took, but for those that last as long as the client likes.",
            labels=("operation",),
            values={(name,): histogram for name, histogram in figures.durations.items()},
        )
        yield Family(
            name="fargate_control_plane_tasks",
            kind="gauge",
            help="Tasks that have not stopped, by status.",
            labels=("status",),
            values={(status,): count for status, count in tasks.items()},
        )
        yield Family(
            name="fargate_control_plane_task_delivery_seconds",
            kind="histogram",
            help="From sending a task to its agent until the agent has taken it.",
            values={(): figures.deliveries},
        )
        yield Family(
            name="fargate_control_plane_database_seconds",
            kind="histogram",
            help="How long transactions are open, by kind, without the wait for a turn.",
            labels=("kind",),
            values={(kind,): histogram for kind, histogram in store.times.items()},
        )
        yield Family(
            name="fargate_control_plane_event_loop_lag_seconds",
            kind="histogram",
            help="How late the event loop does what is due; looked at every second.",
            values={(): figures.lag},
        )
        yield Family(
            name="fargate_control_plane_log_lines",
            kind="counter",
            help="Lines that were logged, by level, from warnings on.",
            labels=("level",),
            values={(level,): count for level, count in self._log_lines.items()},
        )
        yield Family(
            name="fargate_control_plane_agents_connected",
            kind="gauge",
            help="Agents with a websocket of this process.",
            values={(): self._count_sessions()},
        )
        yield Family(
            name="fargate_control_plane_writers_waiting",
            kind="gauge",
            help="Transactions that wait for their turn to write.",
            values={(): store.waiting},
        )
