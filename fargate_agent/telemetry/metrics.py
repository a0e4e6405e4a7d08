"""`GET /metrics` of the agent: what containers use now, and the agent itself."""

import asyncio
import time
from collections.abc import Callable

from fargate_agent.measures.exposition import render
from fargate_agent.telemetry.agent_families import AgentState, agent_families
from fargate_agent.telemetry.container_families import container_families
from fargate_agent.telemetry.figures import AgentFigures
from fargate_agent.telemetry.sampler import Sampler


class AgentMetrics:
    """Renders the metrics for whoever asks."""

    def __init__(
        self,
        sampler: Sampler,
        figures: AgentFigures,
        read_state: Callable[[], AgentState],
        *,
        forgets: bool,
    ) -> None:
        """`forgets`: nobody else forgets of the sampler what has ended."""
        self._sampler = sampler
        self._figures = figures
        self._read_state = read_state
        self._forgets = forgets

    async def render(self) -> bytes:
        """Return the text. Containers are looked at, unless somebody else did so just now."""
        await self._sampler.sample()
        families = [
            *agent_families(self._figures, self._read_state()),
            *container_families(list(self._sampler.tasks.values()), time.time(), time.monotonic()),
        ]
        if self._forgets:
            self._sampler.forget_ended()
        return await asyncio.to_thread(render, families)
