"""What the control plane counts of its own work. Plain numbers: nothing is loaded for them."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from fargate_agent.measures.histogram import LONG_SECONDS, Histogram

OPERATION: Final = web.RequestKey("operation", str)
"""What a request is for, once that is known to be something that there is."""
UNKNOWN: Final = "unknown"
"""Of requests that don't get so far: whatever clients send, labels stay few."""
ENDLESS: Final = frozenset({"/ws", "/events"})
"""Paths whose requests last as long as the client likes."""


@dataclass(slots=True)
class PlaneFigures:
    """Counts since the control plane was started."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By operation and status."""
    durations: dict[str, Histogram] = field(default_factory=dict)
    """By operation."""
    deliveries: Histogram = field(default_factory=partial(Histogram, LONG_SECONDS))
    """From the moment that a task was sent to its agent until the agent has taken it."""
    lag: Histogram = field(default_factory=Histogram)

    def counting(self) -> Middleware:
        """Return what counts requests, around everything else."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            began_s = perf_counter()
            response = await handler(request)
            operation = request.get(OPERATION, UNKNOWN)
            self.requests[operation, str(response.status)] += 1
            if request.path not in ENDLESS:
                self.durations.setdefault(operation, Histogram()).observe(perf_counter() - began_s)
            return response

        return count
