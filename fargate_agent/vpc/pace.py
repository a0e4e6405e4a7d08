"""How fast one task is listened to.

A task that asks faster isn't refused: its packets wait in its sockets, which hold some hundred, and
the kernel drops the rest. So a flood costs the agent nothing.
Source: Amazon VPC User Guide, "Amazon DNS quotas": 1,024 packets a second of a network interface.
"""

import time
from collections.abc import Callable
from typing import Final

PER_S: Final = 1024
"""Of all that the VPC serves together."""
SLICES_PER_S: Final = 16


class Pace:
    """Counts what one task asks, in slices of time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds."""
        self._clock = clock
        self._ends_at_s = float("-inf")
        self._left = 0

    def left(self) -> int:
        """Return how many more may be taken in this slice."""
        now_s = self._clock()
        if now_s >= self._ends_at_s:
            self._ends_at_s, self._left = now_s + 1 / SLICES_PER_S, PER_S // SLICES_PER_S
        return self._left

    def take(self) -> None:
        """Count one."""
        self._left -= 1

    def pause_s(self) -> float:
        """Return how long it is until the next slice begins."""
        return max(self._ends_at_s - self._clock(), 0)
