"""Ends a task before volumes that grow fill the disk of this machine.

The files of volumes are without content at first, so tasks are promised more than the disk has. A
disk that is full takes writes of volumes and loses them, and the agent can't write its records. So
one task is ended before that, as the kubelet evicts pods: the one whose volume has grown most. It
is killed: it would go on writing during the stop timeouts of its containers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from fargate_agent.errors import OutOfDiskError
from fargate_agent.volumes.bounded import GIB
from fargate_agent.volumes.room import MIB, Disk, Room

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
CLOSE_PERIOD_S: Final = 0.1
CLOSE_BYTES: Final = 2 * GIB
"""How often, while not more than this is free beside the margin: a fast disk takes it in a second.
"""
PATIENCE_S: Final = 30.0
"""How long a task that was killed may take to give its space back, before another one is ended."""

End = Callable[[str, str], Awaitable[None]]
"""Ends the task with an id, for a reason."""


class DiskGuard:
    """Looks at the disk while tasks run."""

    def __init__(self, room: Room, disk: str, find_running: Callable[[], Collection[str]]) -> None:
        """`disk` is its name for people; `find_running` returns ids of tasks that could be ended.

        Nothing is looked at yet.
        """
        self._room = room
        self._disk = disk
        self._find_running = find_running
        self._calm: dict[str, int] = {}
        """How large the files were when the disk was last in order."""
        self._ended: set[str] = set()
        """Who was ended, and is still there."""
        self._spared_until_s = 0.0
        """Until when others are spared while one of those is there."""

    async def serve(self, end: End) -> None:
        """Look at the disk, more often when it is almost full, until cancelled."""
        if self._room.mode == "reserved":
            return  # no volume grows
        clock = asyncio.get_running_loop().time
        pause_s = PERIOD_S
        while True:
            await asyncio.sleep(pause_s)
            running = self._find_running()
            if not running:
                continue
            try:
                disk, sizes = await asyncio.to_thread(self._look)
            except OSError as error:
                log.warning("%s can't be looked at: %s", self._disk, error.strerror)
                continue
            is_close = disk.free_bytes < disk.margin_bytes + CLOSE_BYTES
            pause_s = CLOSE_PERIOD_S if is_close else PERIOD_S
            chosen = self.choose(disk, {one: sizes.get(one, 0) for one in running}, clock())
            if chosen is not None:
                reason = self.explain(disk)
                log.warning("task %s is ended: %s", chosen, reason, extra={"task": chosen})
                await end(chosen, reason)

    def choose(self, disk: Disk, sizes: Mapping[str, int], now_s: float) -> str | None:
        """Return which task is ended now; None: none. `sizes` are the bytes that files take."""
        self._ended &= sizes.keys()
        self._calm = {one: self._calm.get(one, size) for one, size in sizes.items()}
        if disk.free_bytes >= disk.margin_bytes:
            self._calm = dict(sizes)
        if disk.free_bytes >= disk.margin_bytes // 2:
            return None
        if self._ended and now_s < self._spared_until_s:
            return None
        filled = {one: size for one, size in sizes.items() if size and one not in self._ended}
        if not filled:
            return None  # it isn't the volumes
        chosen = max(filled, key=lambda one: (filled[one] - self._calm[one], filled[one]))
        self._ended.add(chosen)
        self._spared_until_s = now_s + PATIENCE_S
        return chosen

    def explain(self, disk: Disk) -> str:
        """Return why a task was ended, for its owner."""
        return OutOfDiskError(
            f"{self._disk} is almost full ({disk.free_bytes // MIB} MiB of "
            f"{disk.size_bytes // MIB} MiB free): the task whose ephemeral volume grew most was "
            "ended"
        ).reason

    def _look(self) -> tuple[Disk, dict[str, int]]:
        volumes = self._room.list_volumes()
        sizes = {task_id: volume.allocated_bytes for task_id, volume in volumes.items()}
        return self._room.look(), sizes
