"""Space on a disk that is given up when nothing else is left, so that tasks can still be stopped.

All functions but `serve` block.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

log = logging.getLogger(__name__)

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the kernel says when there is no space."""
KEEP_EVERY_S: Final = 60
FILE: Final = "reserve"
"""Its name in a state directory."""
_SPARE: Final = 4
"""The reserve is made only if the disk has so many times its size: it must not fill the disk."""

Result = TypeVar("Result")


class Reserve:
    """A file that holds the space."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Make nothing yet; the directory of the file must be there when `keep` is called."""
        self._path = path
        self._size_bytes = size_bytes

    def keep(self) -> None:
        """Hold the space from now on, if the disk has enough; a restart doesn't let go of it."""
        try:
            if self._path.exists() and self._path.stat().st_size >= self._size_bytes:
                return
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize >= _SPARE * self._size_bytes:
                self._allocate()
        except OSError as error:
            log.warning("no space is held back at %s: %s", self._path, error.strerror)

    async def serve(self) -> None:
        """Hold the space, and again after it was used, until cancelled."""
        while True:
            await asyncio.to_thread(self.keep)
            await asyncio.sleep(KEEP_EVERY_S)

    def give_up(self) -> None:
        """Free the space, if it is still held."""
        try:
            self._path.unlink()
        except OSError:
            return
        log.warning("the disk of %s is full: what was held back is free now", self._path.parent)

    def insist(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns; if the disk is full, it is done again with the reserve.

        Raises:
            OSError: that of the work.
        """
        try:
            return work()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.give_up()  # somebody else may have done so just now
            return work()

    def _allocate(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError:
            with suppress(OSError):
                self._path.unlink()
            raise
        finally:
            os.close(descriptor)
