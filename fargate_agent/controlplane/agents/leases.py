"""How long an agent counts as connected without a word of the process that holds its websocket."""

import time
from typing import Final

from sqlalchemy import ColumnElement

from fargate_agent.controlplane.state.model import ContainerInstance

LEASE_S: Final = 15
RENEW_EVERY_S: Final = 5


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
