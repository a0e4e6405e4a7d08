"""Records in a file: whole lines, for root alone, begun anew when it is large."""

import errno
import logging
import os
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.network.flow_logs.records import VERSION, Batch

MODE: Final = 0o600
AT_ONCE_BYTES: Final = 1 << 20
"""Of lines that are written together."""
_TAIL_BYTES: Final = 4096
"""More than a line has."""

log = logging.getLogger(__name__)


class LogFile:
    """A file that grows, and some that it was before: `FILE.1` is the latest of these."""

    def __init__(self, path: Path, max_bytes: int, max_files: int) -> None:
        """Touches nothing. Of `max_files` the one that grows is one."""
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._lost: set[str] = set()
        self._fault = ""
        self._turn = threading.Lock()

    def put(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            try:
                for chunk in _join(batch):
                    self._append(chunk)
            except OSError as error:
                self._note_fault(error.strerror or str(error))
                with self._turn:
                    self._lost.add(batch.eni_id)
            else:
                self._fault = ""

    def take_lost(self) -> Collection[str]:
        with self._turn:
            lost, self._lost = self._lost, set()
        return lost

    def _note_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            log.error("flow logs: %s can't be written, records are lost: %s", self._path, fault)

    def _append(self, lines: bytes) -> None:
        with suppress(FileNotFoundError):
            if self._path.lstat().st_size + len(lines) > self._max_bytes:
                self._rotate()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(self._path, flags, MODE)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if stat.S_IMODE(status.st_mode) != MODE:
                os.fchmod(file, MODE)
            _write_whole(file, status.st_size, lines)
        finally:
            os.close(file)

    def _rotate(self) -> None:
        kept = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, self._max_files))]
        if len(kept) == 1:
            self._path.unlink(missing_ok=True)
        for newer, older in reversed(list(zip(kept, kept[1:], strict=False))):
            with suppress(FileNotFoundError):
                newer.replace(older)


def _join(batch: Batch) -> Iterator[bytes]:
    """Yield the lines of a batch, together as far as there may be so many at once."""
    lines: list[bytes] = []
    size = 0
    for record in batch.records:
        line = f"{record.text}\n".encode()
        if lines and size + len(line) > AT_ONCE_BYTES:
            yield b"".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield b"".join(lines)


def _write_whole(file: int, size: int, lines: bytes) -> None:
    """Write behind the last whole line, all or nothing."""
    end, begin = _end_of_lines(file, size)
    os.ftruncate(file, end)
    rest = begin + lines
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, end)
        raise


def _end_of_lines(file: int, size: int) -> tuple[int, bytes]:
    """Return where the next line is to begin, and what has to stand before it.

    A record that an agent had begun when it was killed goes; what else lacks an end gets one.
    """
    tail = os.pread(file, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
    unended = tail[tail.rfind(b"\n") + 1 :]
    if not unended:
        return size, b""
    if unended.startswith(f"{VERSION} ".encode()):
        return size - len(unended), b""
    return size, b"\n"
