"""What a control group has used, read from its files. No shim is asked, and nothing is awaited.

Only what telemetry needs is read: a reading of a container is four short files with cgroup v2, and
four with v1. All functions block, for some 50 µs.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.runtime.cgroupdriver import CgroupDrivers

_NS_PER_US: Final = 1000
_MAX_BYTES: Final = 64 * 1024
"""Of a file; `memory.stat` has some 2 KiB, `io.stat` a line for each disk."""
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
"""The latter: the group went while its file was open."""
_V1_IO: Final = "blkio.throttle.io_service_bytes_recursive"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReading:
    """What a group has used since it was made, and holds now."""

    group: int
    """Tells this group from one that was made later in its place."""
    cpu_ns: int
    memory_bytes: int
    cache_bytes: int
    """The part of it that can be dropped: inactive files with v2, all cache with v1."""
    read_bytes: int
    written_bytes: int


class GroupReader:
    """Reads the groups of containers, whichever driver made them and whichever version they are."""

    def __init__(self, cgroups: CgroupDrivers) -> None:
        self._drivers = cgroups
        self._unified = cgroups.cgroups.unified
        self._controllers: Mapping[str, Path] = cgroups.cgroups.controllers

    def read(self, path: str) -> GroupReading | None:
        """Return what a group, as a plan names it, has used; None if it isn't there.

        Raises:
            OSError: the kernel refused.
        """
        located = self._drivers.of(path).locate(path).lstrip("/")
        try:
            return self._read_v2(located) if self._unified else self._read_v1(located)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise

    def _read_v2(self, path: str) -> GroupReading:
        group = self._controllers["memory"] / path
        io = _read_if_any(group / "io.stat")
        return GroupReading(
            group=group.stat().st_ino,
            cpu_ns=find_number(_read(group / "cpu.stat"), "usage_usec") * _NS_PER_US,
            memory_bytes=int(_read(group / "memory.current")),
            cache_bytes=find_number(_read(group / "memory.stat"), "inactive_file"),
            read_bytes=sum_io(io, "rbytes="),
            written_bytes=sum_io(io, "wbytes="),
        )

    def _read_v1(self, path: str) -> GroupReading:
        memory = self._controllers["memory"] / path
        cpu = self._controllers.get("cpuacct")
        blkio = self._controllers.get("blkio")
        io = "" if blkio is None else _read_if_any(blkio / path / _V1_IO)
        return GroupReading(
            group=memory.stat().st_ino,
            cpu_ns=0 if cpu is None else int(_read(cpu / path / "cpuacct.usage")),
            memory_bytes=int(_read(memory / "memory.usage_in_bytes")),
            cache_bytes=find_number(_read(memory / "memory.stat"), "total_cache"),
            read_bytes=sum_v1_io(io, "read"),
            written_bytes=sum_v1_io(io, "write"),
        )


def find_number(text: str, name: str) -> int:
    """Return the number behind a name in a file with a name and a number in each line; or 0."""
    for line in text.splitlines():
        found, _, number = line.partition(" ")
        if found == name:
            return int(number)
    return 0


def sum_io(text: str, key: str) -> int:
    """Return the sum, over all disks, of a key of `io.stat`."""
    return sum(
        int(word.removeprefix(key))
        for line in text.splitlines()
        for word in line.split()
        if word.startswith(key)
    )


def sum_v1_io(text: str, operation: str) -> int:
    """Return the sum, over all disks, of an operation of `blkio`; case doesn't count.

    Source: amazon-ecs-agent, agent/stats/utils_unix.go.
    """
    lines = (line.split() for line in text.splitlines())
    return sum(int(line[2]) for line in lines if len(line) == 3 and line[1].lower() == operation)


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MAX_BYTES).decode(errors="replace")
    finally:
        os.close(descriptor)


def _read_if_any(path: Path) -> str:
    """Read a file that a kernel, or a group, may lack."""
    try:
        return _read(path)
    except OSError as error:
        if error.errno in {*_GONE, errno.EOPNOTSUPP}:
            return ""
        raise
