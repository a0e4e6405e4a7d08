"""What the agent tells of its tasks and of itself: buckets, metrics, traces, put together."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fargate_agent.acs.reporter import Reporter
from fargate_agent.acs.session import Session
from fargate_agent.composition import Shared
from fargate_agent.measures.lag import watch_lag
from fargate_agent.measures.listener import listening
from fargate_agent.measures.log_lines import LogLines
from fargate_agent.preconditions import NotNowError
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.telemetry.agent_families import AgentState
from fargate_agent.telemetry.figures import AgentFigures
from fargate_agent.telemetry.groups import GroupReader
from fargate_agent.telemetry.metrics import AgentMetrics
from fargate_agent.telemetry.outbox import Outbox
from fargate_agent.telemetry.publisher import Publisher
from fargate_agent.telemetry.sampler import Sampler
from fargate_agent.telemetry.traces import Traces
from fargate_agent.volumes.ephemeral import measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Who is asked how things are."""

    supervisor: Supervisor
    reporter: Reporter
    session: Session
    outbox: Outbox
    figures: AgentFigures


class Observing:
    """The services that tell."""

    def __init__(self, shared: Shared, observed: Observed) -> None:
        self._settings = shared.settings
        self._observed = observed
        self._log_lines = LogLines()
        self._sampler = Sampler(
            GroupReader(shared.cgroups),
            observed.supervisor.runs,
            os.cpu_count() or 1,
            measure=measure,
        )
        self._metrics = AgentMetrics(
            self._sampler, observed.figures, self._read_state, forgets=not shared.settings.telemetry
        )
        self.render = self._metrics.render

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[None]:
        """Count log lines while the body runs, and answer Prometheus and make traces if wanted.

        Raises:
            AgentError: the address can't be listened at.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self._log_lines)
            if listen := self._settings.metrics_listen:
                try:
                    await stack.enter_async_context(listening(listen, self.render))
                except OSError as error:
                    raise NotNowError(f"metrics_listen {listen}: {error.strerror}") from error
            if self._settings.otlp_endpoint is not None:
                traces = await asyncio.to_thread(Traces, self._settings.otlp_endpoint)
                stack.push_async_callback(traces.close)
                self._observed.figures.export = traces.note_start
            yield

    def services(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs as long as the agent."""
        observed, found = self._observed, list[Coroutine[Any, Any, None]]()
        if self._settings.telemetry:
            publisher = Publisher(
                self._sampler, observed.outbox, lambda: observed.session.instance_arn
            )
            found.append(publisher.serve())
        if self._settings.metrics_listen is not None:
            found.append(watch_lag(observed.figures.lag))
        return found

    def _read_state(self) -> AgentState:
        observed = self._observed
        return AgentState(
            tasks=Counter(run.facts.status.value for run in observed.supervisor.runs()),
            connected=observed.session.connected,
            connections=observed.session.connections,
            received_frames=observed.session.received,
            sent_frames=observed.outbox.sent,
            dropped_frames=observed.outbox.dropped,
            waiting_frames=len(observed.outbox),
            waiting_changes=len(observed.reporter),
            log_lines=self._log_lines.counts,
        )
