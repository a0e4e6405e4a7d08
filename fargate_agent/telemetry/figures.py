"""What the agent counts of its own work. Plain numbers: nothing is loaded for them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from fargate_agent.measures.histogram import LONG_SECONDS, Histogram
from fargate_agent.task.phases import Phase
from fargate_agent.task.runner import TaskRun

log = logging.getLogger(__name__)

_long = partial(Histogram, LONG_SECONDS)
PHASES = (
    "total",
    "netns",
    "prepare",
    "eni",
    "names",
    "metadata",
    "volumes",
    "pull",
    "create",
    "start",
)
"""Parts of a start; see `task.phases`."""


@dataclass(slots=True)
class AgentFigures:
    """Counts since the agent was started."""

    starts: dict[str, Histogram] = field(default_factory=lambda: {name: _long() for name in PHASES})
    """By part; those that went well."""
    failed_starts: int = 0
    """Of tasks that ended before they ran."""
    failed_pulls: int = 0
    pulled_bytes: int = 0
    lag: Histogram = field(default_factory=Histogram)
    export: Callable[[TaskRun, tuple[Phase, ...]], None] | None = None
    """Is told of each start as well, where traces are wanted."""

    def note_start(self, run: TaskRun, phases: tuple[Phase, ...]) -> None:
        """Count a start that is over. The task doesn't suffer from what fails here."""
        try:
            if self.export is not None:
                self.export(run, phases)
        except Exception:
            log.exception("task %s: its start makes no trace", run.plan.id)
        for phase in phases:
            if not phase.failed:
                self.starts[phase.name].observe(phase.took_s)
        self.failed_starts += phases[0].failed
        self.failed_pulls += sum(phase.failed for phase in phases if phase.name == "pull")
        self.pulled_bytes += sum(progress.fetched_bytes for progress in run.progress.values())
