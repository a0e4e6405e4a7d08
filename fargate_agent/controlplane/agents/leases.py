"""How long an agent counts as connected without a word of the process that holds its websocket."""

import time
from typing import Final

from sqlalchemy import ColumnElement, and_

from fargate_agent.controlplane.state.model import ContainerInstance

LEASE_S: Final = 15


def next_lease() -> float:
    """Return until when an agent that is connected now is taken to be."""
    return time.time() + LEASE_S


def is_running(connected_until: float) -> bool:
    """Whether a lease holds. One that is too long is of a time when the clock was wrong."""
    return 0 < connected_until - time.time() <= 2 * LEASE_S


def has_lease() -> ColumnElement[bool]:
    """Select the instances whose lease holds."""
    now = time.time()
    return ContainerInstance.connected_until.between(now, now + 2 * LEASE_S)


def is_active() -> ColumnElement[bool]:
    """Select the instances that are listed: neither retired, nor away for long."""
    return and_(ContainerInstance.status != "INACTIVE", ~ContainerInstance.silent)


def shown_status(instance: ContainerInstance) -> str:
    """Return what clients are told: one that is away for long is inactive until it is back."""
    return "INACTIVE" if instance.silent else instance.status
