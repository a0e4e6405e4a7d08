"""Waiting longer after each failure in a row."""

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The pauses between the tries of one thing."""

    first_s: float
    longest_s: float
    """Without the jitter."""
    factor: float = 2.0
    jitter: float = 0.2
    """Each pause is up to this part of itself longer, so that many clients don't come at once."""

    def pauses_s(self) -> Iterator[float]:
        """Yield the pauses in seconds, without end.

        Example:
            >>> from itertools import islice
            >>> list(islice(Backoff(first_s=1, longest_s=3, jitter=0).pauses_s(), 4))
            [1.0, 2.0, 3.0, 3.0]
        """
        pause_s = min(self.first_s, self.longest_s)
        while True:
            yield pause_s * (1 + random.uniform(0, self.jitter))  # noqa: S311 - no secret
            pause_s = min(pause_s * self.factor, self.longest_s)
