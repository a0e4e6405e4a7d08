"""When everything has to be over."""

import time

LAST_PAUSE_S = 1.0
"""The longest pause when the end has begun: the destination may be back by then."""
NAP_S = 0.25
"""In a pause, how often is looked whether the end has begun."""


class Deadline:
    """When everything has to be over: never, until the end has begun."""

    def __init__(self) -> None:
        self.at = float("inf")

    def begin(self, seconds: float) -> None:
        """The end has begun; what came first counts."""
        self.at = min(self.at, time.monotonic() + seconds)

    def has_begun(self) -> bool:
        """Whether the end has begun."""
        return self.at != float("inf")

    def left_s(self, at_most: float) -> float:
        """Seconds that an operation may take; 0 if there are none."""
        return max(0.0, min(at_most, self.at - time.monotonic()))

    def rest(self, seconds: float) -> None:
        """Do nothing for so long; for less when the end has begun."""
        until = time.monotonic() + seconds
        while (rest_s := self.left_s(until - time.monotonic())) > 0:
            if self.has_begun():
                until = min(until, time.monotonic() + LAST_PAUSE_S)
            time.sleep(min(rest_s, NAP_S))

    def is_over(self) -> bool:
        """Whether there is no time left."""
        return time.monotonic() >= self.at
