"""How much scratch space a task uses: its images, what its containers wrote, and its volumes.

As on Fargate, where images are in that space too. Source: ECS developer guide, "Fargate task
ephemeral storage".
"""

import asyncio
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.containerd.errors import ContainerdError, NotFoundError
from fargate_agent.containerd.snapshots import Snapshots
from fargate_agent.errors import ContainerRuntimeError
from fargate_agent.plan import TaskPlan
from fargate_agent.runtime.reasons import render_error

BLOCK_BYTES: Final = 512
"""Source: stat(2), `st_blocks`."""
MAX_FILES: Final = 500_000
"""Of the volumes of one task: about two seconds of looking."""
MAX_LAYERS: Final = 4096
"""How many layers are remembered; they don't change."""


class StorageUse:
    """Measures tasks."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._layers: dict[str, tuple[int, str]] = {}
        """Size and parent, by name."""

    async def measure(self, task: TaskPlan) -> int:
        """Return the bytes that a task uses; a layer that several containers have counts once.

        Raises:
            ContainerRuntimeError: containerd doesn't tell.
            OSError: the volumes can't be read.
        """
        sizes: dict[str, int] = {}
        try:
            for container in task.containers:
                await self._add(container.id, sizes)
        except ContainerdError as error:
            raise ContainerRuntimeError(render_error(error)) from error
        return sum(sizes.values()) + await _measure_directory(task.directory)

    async def _add(self, key: str, sizes: dict[str, int]) -> None:
        """Add a snapshot and all below it."""
        parent = key
        while parent and parent not in sizes:
            try:
                size, below = self._layers.get(parent) or await self._look_at(
                    parent, is_layer=parent != key
                )
            except NotFoundError:
                return  # not made yet, or gone
            sizes[parent] = size
            parent = below

    async def _look_at(self, key: str, *, is_layer: bool) -> tuple[int, str]:
        info = await self._snapshots.stat(key)
        found = await self._snapshots.usage(key), info.parent
        if is_layer:
            if len(self._layers) >= MAX_LAYERS:
                self._layers.clear()
            self._layers[key] = found
        return found


async def _measure_directory(directory: Path) -> int:
    stopped = threading.Event()
    try:
        return await asyncio.to_thread(measure_tree, directory, stopped)
    finally:
        stopped.set()


def measure_tree(directory: Path, stopped: threading.Event) -> int:
    """Return the bytes on disk of all that is in a directory, on its own file system; blocks.

    A file with several names counts several times. Ends early when `stopped` is set.

    Raises:
        OSError: it can't be read, or there are too many files to look at.
    """
    try:
        device = directory.stat().st_dev
    except FileNotFoundError:
        return 0
    total, count, waiting = 0, 0, [str(directory)]
    while waiting and not stopped.is_set():
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as entries:
            for count, entry in enumerate(entries, count + 1):  # noqa: B020 - it counts on
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # the others are there
                    continue
                if found.st_dev == device:
                    total += found.st_blocks * BLOCK_BYTES
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
                if count > MAX_FILES:
                    raise OSError(f"{directory} has more than {MAX_FILES} files")
    return total
