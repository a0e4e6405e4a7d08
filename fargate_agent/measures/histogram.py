"""Counts of how long something took, cheap enough for every request."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Bounds for what takes milliseconds."""
LONG_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Bounds for what may wait for a network."""


class Histogram:
    """How many of some values are at most as large as each of some bounds, and their sum."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @contextmanager
    def time(self) -> Iterator[None]:
        """Count how long the body takes, in seconds."""
        began_s = perf_counter()
        try:
            yield
        finally:
            self.observe(perf_counter() - began_s)

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def cumulate(self) -> list[tuple[str, float]]:
        """Return for each bound how many are at most that, as Prometheus has it."""
        total, found = 0, list[tuple[str, float]]()
        for bound, count in zip((*map(_render, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found


def _render(bound: float) -> str:
    return str(float(bound))
