"""Locks by name, so that what two tasks need is fetched and unpacked once."""

import asyncio
from weakref import WeakValueDictionary


class KeyedLocks:
    """One lock per name, which exists as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, name: str) -> asyncio.Lock:
        """Return the lock of that name.

        Example:
            >>> async with locks.lock(layer.digest):  # doctest: +SKIP
            ...     await fetch(layer)
        """
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
