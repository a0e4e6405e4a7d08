"""How wrong the clock of this machine may be, as metadata tell it."""

from datetime import UTC, datetime

from fargate_agent.kernel_clock import read_clock
from fargate_agent.wire.metadata import ClockDrift


def read_clock_drift() -> ClockDrift | None:
    """Ask the kernel; None if it doesn't tell."""
    clock = read_clock()
    if clock is None:
        return None
    return ClockDrift(
        clock_error_bound=clock.max_error_us / 1000,
        reference_timestamp=datetime.now(UTC),
        clock_synchronization_status=(
            "SYNCHRONIZED" if clock.is_synchronized else "NOT_SYNCHRONIZED"
        ),
    )
