"""Waiting longer after each failure."""

import random
from collections.abc import Iterator


def backoff_delays_s(
    first_s: float, most_s: float, factor: float, jitter: float
) -> Iterator[float]:
    """Yield delays for ever: each `factor` times the last, up to `most_s`.

    The jitter only adds, up to that share of the delay.

    Example:
        >>> from itertools import islice
        >>> list(islice(backoff_delays_s(1, 3, 2, 0), 4))
        [1, 2, 3, 3]
    """
    delay_s = first_s
    while True:
        yield delay_s + random.uniform(0, jitter * delay_s) if jitter else delay_s  # noqa: S311 - no secret
        delay_s = min(delay_s * factor, most_s)
