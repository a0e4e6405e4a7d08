"""What is taken back of ENIs that are detached when nobody waits for it.

The flows of their addresses: the kernel walks through all it could have, which takes milliseconds.
The interfaces: most often they go with the namespace of their task, which takes the kernel as long
for many as for one. Taking one away alone takes it 20 ms, in which nothing else of the host's
network is changed.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.network.blocking import NetlinkError, delete_link
from fargate_agent.network.conntrack import Address, forget_flows
from fargate_agent.threads import in_thread

DELETE_AFTER_S: Final = 1.0
"""How long an interface is left to the end of its namespace."""

log = logging.getLogger(__name__)


class Removals:
    """The interfaces and the flows that are still to be removed."""

    def __init__(self, note_forgotten: Callable[[], object]) -> None:
        """`note_forgotten` is called in a thread after flows are forgotten."""
        self._note_forgotten = note_forgotten
        self._links: dict[asyncio.Task[None], tuple[Path, asyncio.Event]] = {}
        self._addresses: set[Address] = set()
        self._forgetting: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def add_link(self, index: int, netns: Path) -> None:
        """Remove an interface later; `netns` is where its other end is."""
        soon = asyncio.Event()
        job = asyncio.create_task(self._remove(index, soon))
        self._links[job] = netns, soon
        job.add_done_callback(lambda ended: self._links.pop(ended, None))

    def add_flows(self, addresses: Collection[Address]) -> None:
        """Forget the flows of addresses, with those that come meanwhile."""
        self._addresses.update(addresses)
        if self._forgetting is None:
            self._forgetting = asyncio.create_task(self._forget())

    async def wait_for_flows(self, addresses: Collection[Address]) -> None:
        """Return when none of the addresses has a flow of before."""
        while self._forgetting is not None and not self._addresses.isdisjoint(addresses):
            await asyncio.wait([self._forgetting])

    async def wait_for_links(self, netns: Path) -> None:
        """Return when the interfaces of one namespace are gone."""
        await self._finish([job for job, (where, _) in self._links.items() if where == netns])

    async def finish(self) -> None:
        """Return when all is gone."""
        await self._finish(list(self._links))
        if self._forgetting is not None:
            await asyncio.wait([self._forgetting])

    async def _finish(self, jobs: list[asyncio.Task[None]]) -> None:
        for job in jobs:
            self._links[job][1].set()
        if jobs:
            await asyncio.wait(jobs)

    async def _forget(self) -> None:
        try:
            while self._addresses:
                addresses = frozenset(self._addresses)
                try:
                    await in_thread(forget_flows, addresses)
                except NetlinkError as error:
                    log.warning("could not forget the flows of an ENI: %s", error)
                self._addresses -= addresses
                if not self._addresses:
                    await in_thread(self._note_forgotten)
        finally:
            self._forgetting = None

    async def _remove(self, index: int, soon: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DELETE_AFTER_S):
                await soon.wait()
        async with self._turn:
            try:
                await in_thread(delete_link, None, index)
            except NetlinkError as error:
                log.warning("could not remove the interface of an ENI: %s", error)
