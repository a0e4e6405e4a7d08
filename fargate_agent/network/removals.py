"""Interfaces of ENIs that are detached, removed when nobody waits for it.

They most often go with the namespace of their task, which takes the kernel as long for many as for
one. Taking one away alone takes it 20 ms, in which nothing else of the host's network is changed.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.network.blocking import NetlinkError, delete_link
from fargate_agent.threads import in_thread

DELETE_AFTER_S: Final = 1.0
"""How long an interface is left to the end of its namespace."""

log = logging.getLogger(__name__)


class Removals:
    """The interfaces of the host that are still to be removed."""

    def __init__(self) -> None:
        self._jobs: dict[asyncio.Task[None], tuple[Path, asyncio.Event]] = {}
        self._turn = asyncio.Lock()

    def add(self, index: int, netns: Path) -> None:
        """Remove an interface later; `netns` is where its other end is."""
        soon = asyncio.Event()
        job = asyncio.create_task(self._remove(index, soon))
        self._jobs[job] = netns, soon
        job.add_done_callback(lambda ended: self._jobs.pop(ended, None))

    async def finish(self, netns: Path | None = None) -> None:
        """Return when those of one namespace are gone, or all."""
        jobs = [job for job, (where, _) in self._jobs.items() if netns in (None, where)]
        for job in jobs:
            self._jobs[job][1].set()
        if jobs:
            await asyncio.wait(jobs)

    async def _remove(self, index: int, soon: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DELETE_AFTER_S):
                await soon.wait()
        async with self._turn:
            try:
                await in_thread(delete_link, None, index)
            except NetlinkError as error:
                log.warning("could not remove the interface of an ENI: %s", error)
