"""Containers that print, each with a logger, and what such a logger uses."""

import asyncio
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.images import write_archive
from bench.rig import NAMESPACE, Rig
from bench.sinks import MARK
from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.processes import RuncOptions

IMAGE = "docker.io/library/bench-loggers:1"
SNAPSHOTTER = "overlayfs"
INSIDE = "/lines"
"""Where a container finds the file that it prints."""
FILE_BYTES = 4_000_000
DEADLINE_S = 300.0
SAMPLE_S = 0.01
TICKS_A_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Text:
    """A file that containers print, once or several times."""

    path: Path
    lines: int
    size_bytes: int


def write_text(path: Path, line_bytes: int, size_bytes: int = FILE_BYTES) -> Text:
    """Write lines of so many bytes, the newline included, that don't compress to nothing."""
    lines = size_bytes // line_bytes
    digits = line_bytes - len(MARK) - 1
    with path.open("wb") as file:
        for _ in range(lines):
            file.write(MARK + secrets.token_hex(digits // 2 + 1).encode()[:digits] + b"\n")
    return Text(path, lines, lines * line_bytes)


@dataclass
class Times:
    """What one container took."""

    start_s: float
    """From the creation of its process to the moment when it runs."""
    began_s: float
    """When it ran."""
    delete_s: float
    """How long Delete took, which ends after the logger has."""


@dataclass
class Usage:
    """What a process has used when it was last looked at."""

    cpu_s: float = 0.0
    peak_bytes: int = 0


class Watch:
    """Looks at a process until it ends."""

    def __init__(self, pid: int, before_s: float | None = None) -> None:
        """Take how much processor time before doesn't count; else that of now."""
        self._usage = Usage()
        self._pid = pid
        self._before_s = _read_cpu_s(pid) if before_s is None else before_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> Usage:
        """Look no more; return what it has used since this has begun."""
        self._over.set()
        self._thread.join()
        return self._usage

    def wait(self, within_s: float) -> Usage:
        """Return what it has used when it has ended."""
        self._thread.join(within_s)
        return self.end()

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_S):
            try:
                self._usage.cpu_s = _read_cpu_s(self._pid) - self._before_s
                self._usage.peak_bytes = read_bytes(self._pid, "status", "VmHWM")
            except (OSError, LookupError):
                return


def _read_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_S


def read_bytes(pid: int, file: str, field: str) -> int:
    """Read a number of bytes that the kernel gives in kB.

    Raises:
        LookupError: the process has ended.
    """
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


class Printer:
    """Runs containers in containerd."""

    def __init__(self, machine: Rig, client: Containerd) -> None:
        self._machine = machine
        self._client = client

    async def make(self, command: list[str], text: Text) -> str:
        """Make a container that is ready to be created; return its id."""
        name = f"log-{secrets.token_hex(6)}"
        mount = f"type=bind,src={text.path},dst={INSIDE},options=rbind:ro"
        await asyncio.to_thread(
            self._machine.ctr, "containers", "create", "--mount", mount, IMAGE, name, *command
        )
        return name

    async def create(self, name: str, log_uri: str | None) -> int:
        """Create the process and its logger; return the process id of the shim."""
        mounts = await self._client.snapshots(SNAPSHOTTER).mounts(name)
        pid = await self._client.processes.create(
            name,
            mounts,
            log_uri=log_uri,
            terminal=False,
            options=RuncOptions(),
            deadline_s=DEADLINE_S,
        )
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("PPid:")[2].split()[0])

    async def start(self, name: str) -> None:
        """Set it going."""
        await self._client.processes.start(name)

    async def end(self, name: str) -> float:
        """Wait for its end, and delete it; return how many seconds Delete took."""
        result = await self._client.processes.wait(name)
        ended_s = time.monotonic()
        await self._client.processes.delete(name)
        delete_s = time.monotonic() - ended_s
        await asyncio.to_thread(self._machine.ctr, "containers", "rm", name)
        if result.code:
            raise RuntimeError(f"a container that prints ended with {result.code}")
        return delete_s

    async def kill(self, name: str) -> None:
        """End it, whatever it does."""
        await self._client.processes.force_delete(name)
        await asyncio.to_thread(self._machine.ctr, "containers", "rm", name)

    async def run(self, command: list[str], text: Text, log_uri: str | None) -> tuple[Times, Usage]:
        """Run a container to its end; the usage is that of its logger, or of the shim if none."""
        name = await self.make(command, text)
        mounts_s = time.monotonic()
        shim = await self.create(name, log_uri)
        create_s = time.monotonic() - mounts_s
        watch = Watch(find_logger(shim) or shim)
        began_s = time.monotonic()
        await self.start(name)
        start_s = create_s + time.monotonic() - began_s
        delete_s = await self.end(name)
        return Times(start_s, began_s, delete_s), watch.end()


def find_logger(shim: int) -> int | None:
    """Return the process id of a shim's logger, if it has one."""
    for task in Path(f"/proc/{shim}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"shim-loggers" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


@asynccontextmanager
async def printing(machine: Rig, root: Path) -> AsyncIterator[Printer]:
    """Bring an image into containerd, and what runs it."""
    archive = root / "loggers.tar"
    write_archive(archive, IMAGE)
    await asyncio.to_thread(machine.ctr, "images", "import", str(archive))
    async with Containerd(machine.containerd, NAMESPACE) as client:
        yield Printer(machine, client)


def count_lines(path: Path) -> int:
    """Count the lines of containers in a file."""
    with path.open("rb") as file:
        return sum(line.count(MARK) for line in file)


@contextmanager
def removed(path: Path) -> Iterator[Path]:
    """Remove the files whose names begin so, before and after."""
    _remove(path)
    yield path
    _remove(path)


def _remove(path: Path) -> None:
    for file in path.parent.glob(path.name + "*"):
        file.unlink()
