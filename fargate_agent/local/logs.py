"""Reading back what `shim-loggers/json-file` has written, be it still writing or not.

A container's output is a chain of files, `<name>.log.2`, `<name>.log.1`, `<name>.log`, that grows
at its end and loses its beginning. Where a reader stands in it is told by the file that it has
open, not by a name: names move on with every rotation.
"""

import asyncio
import contextlib
import ctypes
import heapq
import json
import os
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice
from operator import attrgetter
from pathlib import Path
from typing import Final

from fargate_agent.parallel import first_of

BATCH_LINES: Final = 1000
"""Read at once in a thread; bounds the memory that a slow reader costs."""
READ_BYTES: Final = 256 * 1024
MAX_JOINED_CHARS: Final = 1024 * 1024
"""A line that is longer comes in parts, so that it needn't fit into memory."""

IN_MODIFY: Final = 0x2
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
"""Source: Linux, include/uapi/linux/inotify.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line that a container wrote."""

    container: str
    stream: str
    """`stdout` or `stderr`."""
    time: str
    """RFC 3339 in UTC with nine digits of a second, so it sorts as text."""
    log: str
    """With its newline, if it has one."""


async def read_logs(
    directory: Path,
    containers: Collection[str] | None = None,
    *,
    since: datetime | None = None,
    tail: int | None = None,
    follow: bool = False,
    ended: asyncio.Event,
) -> AsyncIterator[LogLine]:
    """Yield what the containers of a task have written, by time.

    Args:
        directory: that of the task; it need not exist yet.
        containers: their names; None for all.
        since: leave out what is older.
        tail: begin with so many lines, of all containers together.
        follow: go on with what they write from now on, until `ended` is set and all is read.
        ended: nothing is written any more.

    Raises:
        OSError: the files can't be read, or the kernel refuses to watch them.
    """
    reader = _TaskLogs(directory, containers, since)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(reader.close)
        if follow:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            changed = stack.enter_context(_watch(directory))
        else:
            changed = ended
        done = not follow or ended.is_set()
        lines = reader.read(complete=done)
        if tail is not None:
            lines = iter(await asyncio.to_thread(deque[LogLine], lines, tail))
        while True:
            while batch := await asyncio.to_thread(list, islice(lines, BATCH_LINES)):
                for line in batch:
                    yield line
            if done:
                return
            await first_of(_wait(changed), _wait(ended))
            changed.clear()
            done = ended.is_set()
            lines = reader.read(complete=done)


async def prune_logs(logs_dir: Path, retention_s: int, keep: Collection[str]) -> list[str]:
    """Remove the logs that nobody wrote to for so long; return the ids of their tasks.

    `keep` are the ids of the tasks that are still there.
    """
    return await asyncio.to_thread(_prune, logs_dir, retention_s, frozenset(keep))
