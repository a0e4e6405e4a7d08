"""The standard streams of a program that is run inside a container: FIFOs of the host.

They lie in a directory for one run, which only root may enter. Its name says what is run, and is
the mark of the run: `<exec id>,<random>`. It is there as long as something of the run may be.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.containerd.execs import Streams
from fargate_agent.drivers import ExecIo
from fargate_agent.plan import ContainerPlan

READ_BYTES: Final = 65_536
"""Most that is read of one stream before others have their turn: what a FIFO holds."""

END_DEADLINE_S: Final = 10.0
"""For the shim to close a FIFO to which it has written all there is; 1 ms as a rule."""

_PAUSE_S: Final = 0.01
"""Between two attempts to write to a FIFO that nobody reads yet; the kernel doesn't tell."""

_STDIN: Final = "stdin"
_STDOUT: Final = "stdout"
_STDERR: Final = "stderr"


class OutputReader:
    """Reads a FIFO to its end, so that nobody who writes ever waits for long."""

    def __init__(self, fifo: Path, on_bytes: Callable[[bytes], None]) -> None:
        """Open a FIFO; its end isn't reached before `wait`, whether others have come or not.

        Raises:
            OSError: it can't be opened.
        """
        self._descriptors = [os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)]
        self._descriptors.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        self._on_bytes = on_bytes
        self._ended = asyncio.Event()

    def begin(self) -> None:
        """Read from now on, whenever there is something."""
        asyncio.get_running_loop().add_reader(self._descriptors[0], self._read)

    async def wait(self) -> None:
        """Return when all other writers are gone, and all that they wrote was read."""
        for writer in self._descriptors[1:]:
            self._descriptors.remove(writer)
            os.close(writer)
        await self._ended.wait()

    def close(self) -> None:
        """Let go of the FIFO; may be repeated."""
        if self._descriptors:
            asyncio.get_running_loop().remove_reader(self._descriptors[0])
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _read(self) -> None:
        try:
            data = os.read(self._descriptors[0], READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._on_bytes(data)
        else:
            asyncio.get_running_loop().remove_reader(self._descriptors[0])
            self._ended.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStreams:
    """The streams of one run."""

    directory: Path
    paths: Streams
    readers: tuple[OutputReader, ...]

    @property
    def mark(self) -> str:
        """What tells this run from all others."""
        return self.directory.name

    def begin(self) -> None:
        """Read what is written from now on."""
        for reader in self.readers:
            reader.begin()

    async def finish(self) -> None:
        """Read to the end when the process is gone, and remove the FIFOs.

        Raises:
            OSError: they can't be removed.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_DEADLINE_S):
                for reader in self.readers:
                    await reader.wait()
        await asyncio.to_thread(_remove, self.directory)

    def close(self) -> None:
        """Let go of the FIFOs, be they there or not."""
        for reader in self.readers:
            reader.close()

    async def feed(self, stdin: AsyncIterator[bytes]) -> None:
        """Return when all of it was written, or nobody reads any more.

        Raises:
            OSError: the FIFO is gone.
        """
        descriptor = await _open_read_fifo(self.paths.stdin)
        try:
            async for data in stdin:
                await _write(descriptor, data)
        except BrokenPipeError:
            return
        finally:
            os.close(descriptor)


async def make_streams(container: ContainerPlan, exec_id: str, io: ExecIo) -> RunStreams | None:
    """Make the FIFOs of a run, and open those that are read from.

    Return None if there is a run under this id that nobody has brought to an end.

    Raises:
        OSError: the task's directory is gone, or the disk is full.
    """

    def make() -> list[RunStreams]:
        for directory in (container.execs_dir.parent, container.execs_dir):
            directory.mkdir(mode=0o700, exist_ok=True)
        if _find_runs(container, exec_id):
            return []
        directory = container.execs_dir / f"{exec_id},{secrets.token_hex(8)}"
        directory.mkdir(mode=0o700)
        outputs = [_STDOUT] if io.sizes is not None else [_STDOUT, _STDERR]
        for name in (*outputs, *([_STDIN] if io.stdin else [])):
            os.mkfifo(directory / name, mode=0o600)
        return [_open_streams(directory, io.on_output, io.on_error)]

    made = await _open_in_thread(make, lambda streams: _remove(streams.directory))
    return made[0] if made else None


async def open_leftovers(container: ContainerPlan, exec_id: str) -> list[RunStreams]:
    """Open the FIFOs of runs that nobody has brought to an end, to throw away what comes.

    Whoever still writes to them goes on then.

    Raises:
        OSError: one can't be opened.
    """

    def open_all() -> list[RunStreams]:
        found = _find_runs(container, exec_id)
        return [_open_streams(directory, _ignore, _ignore) for directory in found]

    return await _open_in_thread(open_all, lambda _: None)


async def _open_in_thread(
    function: Callable[[], list[RunStreams]], undo: Callable[[RunStreams], None]
) -> list[RunStreams]:
    """Let a thread open FIFOs; when this is cancelled close them, and undo what it did."""
    opening = asyncio.create_task(asyncio.to_thread(function))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        if not opening.exception():
            for streams in opening.result():
                streams.close()
                await asyncio.to_thread(undo, streams)
        raise


def _find_runs(container: ContainerPlan, exec_id: str) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        found = container.execs_dir.iterdir()
        return [directory for directory in found if directory.name.startswith(f"{exec_id},")]
    return []


def _remove(directory: Path) -> None:
    """Remove the FIFOs of a run. Nobody else can have put anything there."""
    for fifo in directory.iterdir():
        fifo.unlink()
    directory.rmdir()


def _open_streams(
    directory: Path, on_output: Callable[[bytes], None], on_error: Callable[[bytes], None]
) -> RunStreams:
    stdin, stdout, stderr = (directory / name for name in (_STDIN, _STDOUT, _STDERR))
    outputs = [(stdout, on_output), (stderr, on_error)]
    return RunStreams(
        directory=directory,
        paths=Streams(
            stdin=str(stdin) if stdin.exists() else "",
            stdout=str(stdout),
            stderr=str(stderr) if stderr.exists() else "",
            terminal=not stderr.exists(),
        ),
        readers=tuple(OutputReader(fifo, on_bytes) for fifo, on_bytes in outputs if fifo.exists()),
    )


async def _open_read_fifo(fifo: str) -> int:
    """Return when the shim reads a FIFO, which it opens soon after it has started a program.

    Raises:
        OSError: the FIFO is gone.
    """
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads. Source: fifo(7)
                raise
        await asyncio.sleep(_PAUSE_S)


async def _write(descriptor: int, data: bytes) -> None:
    """Write all of it, as fast as it is read.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            await _wait_until_writable(descriptor)


async def _wait_until_writable(descriptor: int) -> None:
    loop, writable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(descriptor, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(descriptor)


def _ignore(_: bytes) -> None:
    """Throw it away."""
