"""Reading back what `shim-loggers/json-file` has written, be it still writing or not.

A container's output is a chain of files, `<name>.log.2`, `<name>.log.1`, `<name>.log`, that grows
at its end and loses its beginning. Where a reader stands in it is told by the file that it has
open, not by a name: names move on with every rotation. One that was compressed meanwhile, to
`<name>.log.1.gz`, is known by the inode that its header names.
"""

import asyncio
import contextlib
import ctypes
import gzip
import heapq
import io
import json
import logging
import os
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Final

from fargate_agent.parallel import first_of
from fargate_agent.threads import in_thread
from fargate_agent.trees import remove_tree

log = logging.getLogger(__name__)

BATCH_LINES: Final = 1000
"""Read at once in a thread; bounds the memory that a slow reader costs."""
READ_BYTES: Final = 256 * 1024
GZIP: Final = ".gz"
GZIP_MAGIC: Final = b"\x1f\x8b"
_COMMENTED: Final = GZIP_MAGIC + b"\x08\x10"
_HEADER_BYTES: Final = 10
"""How a file begins that has a comment, which is the inode of the file that it replaces.
Source: RFC 1952; shim-loggers/local/compressor.py."""
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
            await in_thread(directory.mkdir, mode=0o750, parents=True, exist_ok=True)
        changed = stack.enter_context(_watch(directory)) if follow else ended
        done = not follow or ended.is_set()
        lines = reader.read(complete=done)
        if tail is not None:
            lines = iter(await in_thread(deque[LogLine], lines, tail))
        while True:
            while batch := await in_thread(list, islice(lines, BATCH_LINES)):
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


class _TaskLogs:
    """The logs of a task's containers. Blocks; made for one thread at a time."""

    def __init__(
        self, directory: Path, containers: Collection[str] | None, since: datetime | None
    ) -> None:
        self._directory = directory
        self._containers = containers
        self._since = f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z" if since else ""
        self._logs: dict[str, _ContainerLog] = {}

    def read(self, *, complete: bool) -> Iterator[LogLine]:
        """Yield what came since the last call; if `complete`, also lines that lack their end."""
        for path in self._directory.glob("*.log*"):
            name = path.name.rpartition(".log")[0]
            if self._containers is None or name in self._containers:
                self._logs.setdefault(name, _ContainerLog(name, self._directory))
        logs = [log.read(complete=complete) for log in self._logs.values()]
        for line in heapq.merge(*logs, key=attrgetter("time")):
            if line.time >= self._since:
                yield line

    def close(self) -> None:
        for log in self._logs.values():
            log.close()


class _ContainerLog:
    """The chain of files of one container, and how far it has been read."""

    def __init__(self, container: str, directory: Path) -> None:
        self._container = container
        self._directory = directory
        self._file: io.FileIO | None = None
        self._content: io.FileIO | gzip.GzipFile | None = None
        """What is read from it, decompressed."""
        self._begun: dict[str, LogLine] = {}
        """A line of which the end is still to come, by stream."""

    def read(self, *, complete: bool) -> Iterator[LogLine]:
        """Yield the lines that are there and weren't yielded yet."""
        while True:
            newer = self._open_newer()  # first of all: from now on nothing is added to the old file
            yield from self._read_file()
            if newer is None:
                break
            self.close()
            self._file = newer
            packed = os.pread(newer.fileno(), len(GZIP_MAGIC), 0) == GZIP_MAGIC
            self._content = gzip.GzipFile(fileobj=newer) if packed else newer
        if complete:
            yield from self._begun.values()
            self._begun.clear()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open_newer(self) -> io.FileIO | None:
        """Open the file that follows the one being read; while names move on, try again."""
        while found := self._find_newer():
            with contextlib.suppress(FileNotFoundError):
                file = io.FileIO(found[0], opener=_open_file)
                again = self._find_newer()
                if again and os.path.samestat(again[1], os.fstat(file.fileno())):
                    return file
                file.close()
        return None

    def _find_newer(self) -> tuple[Path, os.stat_result] | None:
        """Name the file that follows the one being read; if that one is gone, the oldest."""
        current = None if self._file is None else os.fstat(self._file.fileno())
        newer = None
        for name in self._list_from_newest():
            with contextlib.suppress(FileNotFoundError):
                path, status = _find_file(name)
                if current is not None and _is_same(path, status, current):
                    break
                newer = path, status
        return newer

    def _list_from_newest(self) -> list[Path]:
        name = f"{self._container}.log"
        ends = {path.name.removeprefix(f"{name}.") for path in self._directory.glob(f"{name}.*")}
        numbers = {end.removesuffix(GZIP) for end in ends}
        old = sorted(int(number) for number in numbers if number.isdecimal())
        return [self._directory / name, *(self._directory / f"{name}.{n}" for n in old)]

    def _read_file(self) -> Iterator[LogLine]:
        rest = b""
        while data := self._read_some():
            *records, rest = (rest + data).split(b"\n")
            for record in records:
                if line := self._take(record):
                    yield line
        if self._file is not None and self._file is self._content and rest:
            self._file.seek(-len(rest), os.SEEK_CUR)

    def _read_some(self) -> bytes | None:
        """A compressed file that was torn by a crash of the machine ends where it was torn."""
        try:
            return self._content.read(READ_BYTES) if self._content is not None else None
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return None

    def _take(self, record: bytes) -> LogLine | None:
        """Read one record, and put it to what it continues; None until the line has ended.

        A record that makes no sense was torn by a crash of the machine, and is left out.
        """
        try:
            fields = json.loads(record)
            line = LogLine(
                container=self._container,
                stream=fields["stream"],
                time=fields["time"],
                log=fields["log"],
            )
        except (ValueError, LookupError, TypeError):
            return None
        begun = self._begun.pop(line.stream, None)
        if begun is not None:
            line = replace(begun, log=begun.log + line.log)
        if line.log.endswith("\n") or len(line.log) >= MAX_JOINED_CHARS:
            return line
        self._begun[line.stream] = line
        return None


def _find_file(path: Path) -> tuple[Path, os.stat_result]:
    """Return a file, or the compressed one that has just taken its place.

    Raises:
        FileNotFoundError: there is neither.
    """
    try:
        return path, path.stat()
    except FileNotFoundError:
        compressed = path.with_name(path.name + GZIP)
        return compressed, compressed.stat()


def _is_same(path: Path, status: os.stat_result, current: os.stat_result) -> bool:
    """Whether the file at a path is the current one, or what became of it."""
    if os.path.samestat(status, current):
        return True
    if path.suffix != GZIP:
        return False
    with path.open("rb") as file:
        header = file.read(64)
    origin = header[_HEADER_BYTES:].partition(b"\0")[0]
    # A number of an inode alone is soon given to another file.
    known = b"%d.%d" % (current.st_ino, current.st_mtime_ns)
    return header.startswith(_COMMENTED) and origin == known


def _open_file(path: str, flags: int) -> int:
    """Follow no link: a logger's own user may write to the directory, and the agent reads all."""
    return os.open(path, flags | os.O_NOFOLLOW)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


@contextlib.contextmanager
def _watch(directory: Path) -> Iterator[asyncio.Event]:
    """Set the event whenever something in the directory is written, made or renamed."""
    libc = ctypes.CDLL(None, use_errno=True)
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    notices = _check(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def take() -> None:
        os.read(notices, 4096)
        changed.set()

    try:
        what = IN_MODIFY | IN_CREATE | IN_MOVED_TO
        _check(libc.inotify_add_watch(notices, os.fsencode(directory), what))
        loop.add_reader(notices, take)
        yield changed
    finally:
        loop.remove_reader(notices)
        os.close(notices)


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"inotify: {os.strerror(code)}")
    return result


def _prune(logs_dir: Path, retention_s: int, keep: frozenset[str]) -> list[str]:
    limit = time.time() - retention_s
    removed = []
    for directory in logs_dir.iterdir() if logs_dir.is_dir() else ():
        if directory.name in keep or not directory.is_dir():
            continue
        try:
            if max(path.lstat().st_mtime for path in (directory, *directory.iterdir())) <= limit:
                remove_tree(directory)
                removed.append(directory.name)
        except OSError as error:
            log.warning("could not remove the old logs of task %s: %s", directory.name, error)
    return removed
