"""When the network of a task is joined, and who waits for it.

To attach an interface takes the agent as much processor time as to make a container, and only
containerd can go on without the agent. So containers of images that are here have a head start:
the network is joined while containerd makes them. Who needs it, e.g. for a pull, ends that at once.
"""

import asyncio
from contextlib import suppress
from typing import Final, Literal

HEAD_START_S: Final = 0.05
"""Several times what the agent has to do for a container; it may be busy with many tasks."""


class TaskNetwork(asyncio.Event):
    """Set when the network can be used; no container starts before."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted = asyncio.Event()

    def want(self) -> None:
        """Say that nobody is held up if the network is joined now."""
        self._wanted.set()

    async def wait(self) -> Literal[True]:
        self.want()
        return await super().wait()

    async def wait_until_wanted(self) -> None:
        """Return when it is to be joined."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START_S):
                await self._wanted.wait()
