"""The keys in force: those of `keys.toml`, which may change while the control plane runs."""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fargate_agent.controlplane.access.keys import Key, read_keys
from fargate_agent.controlplane.errors import StartError

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1
"""A key that was disabled is good for so much longer, and the answer to a request that began.

What it has opened before ends when whoever holds that looks at it the next time.
"""

_Identity = tuple[int, int, int] | None
"""Inode, size in bytes, and time of the last change in ns; None: it can't be had."""


class Keyring:
    """Gives the keys, and looks at times whether their file has changed.

    A file that has become wrong, or can't be read any more, is logged once; the keys that were read
    before stay in force.
    """

    def __init__(self, path: Path, keys: Mapping[str, Key]) -> None:
        self._path = path
        self._keys = keys
        self._seen: _Identity | tuple[()] = ()  # unlike any: what came between is noticed
        self._next_look_s = 0.0

    async def current(self) -> Mapping[str, Key]:
        """Return the keys by access key id."""
        now_s = time.monotonic()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_EVERY_S
            await asyncio.to_thread(self._look)
        return self._keys

    def _look(self) -> None:
        identity = _identify(self._path)
        if identity == self._seen:
            return
        self._seen = identity
        try:
            keys = read_keys(self._path)
        except StartError as error:
            log.error("%s; the keys that were read before stay in force", error)
            return
        if keys != self._keys:
            self._keys = keys
            log.info("%s was read again: %d keys", self._path, len(keys))


def _identify(path: Path) -> _Identity:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
