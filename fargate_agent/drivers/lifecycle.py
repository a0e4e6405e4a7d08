"""What every driver is, and what some are beside."""

from collections.abc import Collection
from typing import Protocol, Self, runtime_checkable


class Driver(Protocol):
    """What every driver is: an async context manager, open as long as the agent works."""

    async def __aenter__(self) -> Self:
        """Open what the driver needs before its first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what the driver holds of this process."""
        return


@runtime_checkable
class Service(Protocol):
    """Background work. A driver that has some names this as a base, too."""

    async def serve(self) -> None:
        """Work until cancelled. Begins when the tasks of the agent before are known and swept."""
        ...


@runtime_checkable
class Sweeper(Protocol):
    """Takes back what a crash left. A driver of which something may be left names it as a base."""

    async def sweep(self, kept: Collection[str]) -> list[str]:
        """Remove what is left of all tasks but those with the ids `kept`; return the names of it.

        For the start of an agent, before any other call, and for its end. What is removed is
        logged; so is what can't be removed, and it is left.

        Raises:
            ContainerRuntimeError: containerd doesn't say which tasks there are.
        """
        ...
