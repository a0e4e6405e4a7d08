"""The agent's own metrics for Prometheus. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fargate_agent import __version__
from fargate_agent.measures.exposition import Family
from fargate_agent.telemetry.figures import AgentFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """How the agent stands at a moment, and what others have counted."""

    tasks: Mapping[str, int]
    """How many there are by status."""
    connected: bool
    connections: int
    """To the control plane, since the agent was started."""
    received_frames: int
    sent_frames: int
    """Of telemetry."""
    dropped_frames: int
    waiting_frames: int
    waiting_changes: int
    """Tasks with state changes that the control plane hasn't taken."""
    log_lines: Mapping[str, int]
    """By level."""


def agent_families(figures: AgentFigures, state: AgentState) -> Iterator[Family]:
    """Yield what the agent says of itself."""
    yield Family(
        name="fargate_agent_build_info",
        kind="gauge",
        help="The version that runs; always 1.",
        labels=("version",),
        values={(__version__,): 1},
    )
    yield Family(
        name="fargate_agent_tasks",
        kind="gauge",
        help="Tasks that the agent answers for, by status.",
        labels=("status",),
        values={(status,): count for status, count in state.tasks.items()},
    )
    yield Family(
        name="fargate_agent_task_start_seconds",
        kind="histogram",
        help="How long the parts of a start took that went well; total is from the message on.",
        labels=("phase",),
        values={(phase,): histogram for phase, histogram in figures.starts.items()},
    )
    yield Family(
        name="fargate_agent_event_loop_lag_seconds",
        kind="histogram",
        help="How late the event loop does what is due; looked at every second.",
        values={(): figures.lag},
    )
    yield Family(
        name="fargate_agent_log_lines",
        kind="counter",
        help="Lines that the agent has logged, by level, from warnings on.",
        labels=("level",),
        values={(level,): count for level, count in state.log_lines.items()},
    )
    gauges = {
        "acs_connected": ("Whether the control plane is connected.", int(state.connected)),
        "state_changes_waiting": (
            "Tasks with state changes that the control plane hasn't taken.",
            state.waiting_changes,
        ),
        "telemetry_frames_waiting": ("Frames of telemetry to be sent.", state.waiting_frames),
    }
    for name, (text, value) in gauges.items():
        yield Family(name=f"fargate_agent_{name}", kind="gauge", help=text, values={(): value})
    counters = {
        "task_start_failures": ("Tasks that ended before they ran.", figures.failed_starts),
        "pull_failures": ("Pulls, of tasks that were starting, that failed.", figures.failed_pulls),
        "pulled_bytes": ("Bytes of images that were fetched.", figures.pulled_bytes),
        "acs_connections": ("Connections to the control plane.", state.connections),
        "acs_frames_received": ("Frames of the control plane.", state.received_frames),
        "telemetry_frames_sent": ("Frames of telemetry that were sent.", state.sent_frames),
        "telemetry_frames_dropped": (
            "Frames of telemetry that waited too long.",
            state.dropped_frames,
        ),
    }
    for name, (text, value) in counters.items():
        yield Family(name=f"fargate_agent_{name}", kind="counter", help=text, values={(): value})
