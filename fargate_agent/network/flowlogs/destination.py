"""Where flow logs go."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class DestinationError(Exception):
    """Lines were not taken. The text says by whom, and why."""


class Destination(Protocol):
    """Takes the lines of one interval after another."""

    async def write(self, lines: Mapping[str, Sequence[str]], at_s: int) -> None:
        """Return when lines are kept.

        Args:
            lines: by the id of the ENI.
            at_s: the end of their interval, in seconds since 1970.

        Raises:
            DestinationError: some were not.
        """
        ...
