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

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.blocking import NetlinkError, delete_link
from fargate_agent.network.conntrack import Address, forget_flows
from fargate_agent.threads import in_thread

DELETE_AFTER_S: Final = 1.0
"""How long an interface is left to the end of its namespace."""

FORGET_TIMEOUT_S: Final = 30.0
"""How long an ENI waits for the flows of its addresses, and the end of an agent for all."""
RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 5.0
"""How long after a failure it is tried again: first, and at most."""

log = logging.getLogger(__name__)


class Removals:
    """The interfaces and the flows that are still to be removed."""

    def __init__(self, note_forgotten: Callable[[], object]) -> None:
        """`note_forgotten` is called in a thread after flows are forgotten."""
        self._note_forgotten = note_forgotten
        self._links: dict[asyncio.Task[None], tuple[Path, asyncio.Event]] = {}
        self._addresses: set[Address] = set()
        self._forgetting: asyncio.Task[None] | None = None
        self._passed = asyncio.Condition()
        """Of whoever waits for flows."""
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
        """Return when none of the addresses has a flow of before.

        Raises:
            ResourceInitializationError: the kernel has not forgotten them for so long.
        """
        try:
            async with asyncio.timeout(FORGET_TIMEOUT_S), self._passed:
                await self._passed.wait_for(lambda: self._addresses.isdisjoint(addresses))
        except TimeoutError as error:
            left = ", ".join(sorted(str(one) for one in self._addresses.intersection(addresses)))
            raise ResourceInitializationError(
                f"connections of the task that had address {left} before could not be removed from "
                f"the kernel's table within {FORGET_TIMEOUT_S:g} s; the agent's log says why"
            ) from error

    async def wait_for_links(self, netns: Path) -> None:
        """Return when the interfaces of one namespace are gone."""
        await self._finish([job for job, (where, _) in self._links.items() if where == netns])

    async def finish(self) -> None:
        """Return when all is gone."""
        await self._finish(list(self._links))
        if self._forgetting is not None:  # what is left, the next agent's sweep forgets
            forgetting = self._forgetting
            _, late = await asyncio.wait([forgetting], timeout=FORGET_TIMEOUT_S)
            if late:
                forgetting.cancel()
                await asyncio.wait([forgetting])

    async def _finish(self, jobs: list[asyncio.Task[None]]) -> None:
        for job in jobs:
            self._links[job][1].set()
        if jobs:
            await asyncio.wait(jobs)

    async def _forget(self) -> None:
        retry_s = RETRY_S
        try:
            while self._addresses:
                addresses = frozenset(self._addresses)
                try:
                    await in_thread(forget_flows, addresses)
                except (NetlinkError, OSError) as error:
                    log.warning("could not forget the flows of an ENI, retrying: %s", error)
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, MAX_RETRY_S)
                    continue
                retry_s = RETRY_S
                async with self._passed:
                    self._addresses -= addresses
                    self._passed.notify_all()
                if not self._addresses:
                    await self._tell()
        finally:
            self._forgetting = None

    async def _tell(self) -> None:
        try:
            await in_thread(self._note_forgotten)
        except (NetlinkError, OSError) as error:
            log.warning("could not clean up after an ENI: %s", error)

    async def _remove(self, index: int, soon: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DELETE_AFTER_S):
                await soon.wait()
        async with self._turn:
            try:
                await in_thread(delete_link, None, index)
            except NetlinkError as error:
                log.warning("could not remove the interface of an ENI: %s", error)
