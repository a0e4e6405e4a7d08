"""What every operation is handed: the parts of the control plane, and the call itself."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fargate_agent.controlplane.access.auth import Caller
from fargate_agent.controlplane.cloudmap.zones import Zones
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.store import Store
from fargate_agent.controlplane.telemetry.figures import PlaneFigures
from fargate_agent.controlplane.validate import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """The parts; there is one of each."""

    settings: ControlPlaneSettings
    arns: Arns
    store: Store
    announcements: Announcements
    started_at: float
    """Seconds since 1970."""
    figures: PlaneFigures = field(default_factory=PlaneFigures)
    """What is counted for Prometheus."""
    zones: Zones = field(default_factory=Zones)
    """What agents are told of names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that was authenticated, authorized, and has the right shape."""

    request: Json
    caller: Caller
    host: str
    """Host and port as the caller knows them."""
    traceparent: str | None = None
    """The trace that the caller is in, if it says so."""


Operation = Callable[[Plane, Call], Awaitable[Json]]
"""Answers a call; each module with operations has them by name in its `OPERATIONS`."""
