"""How full the disk is that containerd keeps images on."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.introspection import SNAPSHOTTER_TYPE

CONTENT_TYPE: Final = "io.containerd.content.v1"
"""Source: containerd, plugins/types.go, `ContentPlugin`."""

ROOT: Final = "root"
"""What these plugins export: their directory. Source: containerd, snapshots/overlay/plugin."""


class ImageDisk:
    """The file systems of content and unpacked layers, which may be two."""

    def __init__(self, containerd: Containerd, snapshotter: str) -> None:
        self._containerd = containerd
        self._snapshotter = snapshotter
        self._roots: frozenset[Path] | None = None

    async def measure(self) -> float:
        """Return how full the fuller of them is, in percent, as df(1) counts; 0 if nobody knows.

        Raises:
            ContainerdError: containerd doesn't say where they are.
            OSError: they can't be measured.
        """
        if self._roots is None:
            self._roots = await self._find_roots()
        return await asyncio.to_thread(_measure, self._roots)

    async def _find_roots(self) -> frozenset[Path]:
        plugins = await self._containerd.introspection.plugins(
            (f"type=={CONTENT_TYPE}", f"type=={SNAPSHOTTER_TYPE},id=={self._snapshotter}")
        )
        return frozenset(Path(one.exports[ROOT]) for one in plugins if ROOT in one.exports)


def _measure(roots: Iterable[Path]) -> float:
    return max(map(_used_percent, roots), default=0.0)


def _used_percent(directory: Path) -> float:
    """Blocks that only root may use count neither as used nor as free."""
    disk = os.statvfs(directory)
    used = disk.f_blocks - disk.f_bfree
    usable = used + disk.f_bavail
    return 100 * used / usable if usable else 0.0
