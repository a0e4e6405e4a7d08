"""A process that unpacks one layer, and the agent's side of it.

The process is `image.layers.program`. It gets the layer through a pipe, as it comes from the
registry; a process that is slow makes the download slow, so that no more than a piece of it is in
memory. Whatever happens to the process, containerd can still unpack the layer.
"""

import asyncio
import fcntl
import importlib.util
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import fargate_agent
from fargate_agent.image.layers.program import EXIT_NO_SPACE

log = logging.getLogger(__name__)

PIPE_BYTES: Final = 1 << 20
"""What the pipe holds: the most that a process may have without being root."""

STALL_DEADLINE_S: Final = 60.0
"""So long a process may take nothing from its pipe; a disk that is being flushed may stall it."""

END_DEADLINE_S: Final = 300.0
"""So long it may take for the last piece, which decompressed may be a thousand times longer."""

MAX_OUTPUT_BYTES: Final = 1 << 20
"""Of the names of opaque directories."""

_BOOT: Final = (
    "import sys; paths, sys.argv[1:] = sys.argv[1].split(':'), sys.argv[2:]; sys.path += paths; "
    "from fargate_agent.image.layers.program import main; sys.exit(main())"
)
_LIBRARIES: Final = ("isal", "zstandard")


LEAST_STREAMS: Final = 3
"""As many as layers of one image are fetched at once."""

LEAST_READS: Final = 2


class Turns:
    """How many processes the agent has at once, for all images together."""

    def __init__(self, cores: int) -> None:
        self.streams = asyncio.Semaphore(max(LEAST_STREAMS, 2 * cores))
        """For layers as they come. They may wait for a registry for long, so nobody waits for one
        of these turns: a layer that gets none is unpacked from the content store."""
        self.reads = asyncio.Semaphore(max(LEAST_READS, cores))
        """For layers from the content store."""


class LayerSpaceError(Exception):
    """The layer doesn't fit on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What became of a layer."""

    diff_id: str
    opaque: tuple[str, ...] = ()
    """Directories that hide what lies below, absolute within the layer; not marked yet."""


class Extraction:
    """One process; made by `open_extraction`."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: int) -> None:
        self.fed_bytes = 0
        """How much of the layer, as it is packed, has been handed over."""
        self.is_usable = True
        """Whether something may still come of it."""
        self._process = process
        self._pipe: int | None = pipe
        self._output = b""

    @property
    def has_ended(self) -> bool:
        """Whether the process is done with its files, well or not."""
        return self._process.returncode is not None

    @property
    def lacks_space(self) -> bool:
        """Whether the process has ended because the disk is full."""
        return self._process.returncode == EXIT_NO_SPACE

    @property
    def is_open(self) -> bool:
        """Whether it takes more of the layer."""
        return self._pipe is not None

    async def feed(self, offset: int, piece: bytes) -> None:
        """Hand over a piece of the layer; one behind a gap is left out, as it will be fed later.

        A transfer that begins anew, before what was fed, had sent something wrong.
        """
        if offset < self.fed_bytes:
            self.is_usable = False
        if offset != self.fed_bytes or not self.is_usable or self._pipe is None:
            return
        try:
            async with asyncio.timeout(STALL_DEADLINE_S):
                await _write(self._pipe, piece)
        except TimeoutError:
            self._close()
        except OSError:  # the process has ended, and `finish` tells why
            await self.end()
        else:
            self.fed_bytes += len(piece)

    async def end(self) -> None:
        """Return when all that was fed is unpacked, or never will be; nothing is fed after."""
        self._close()
        try:
            async with asyncio.timeout(END_DEADLINE_S):
                self._output += await self._read_output()
                await self._process.wait()
        except TimeoutError:
            self._output = b"not done after %d s" % END_DEADLINE_S
            self.is_usable = False
            self.kill()

    async def finish(self, digest: str) -> Extracted | None:
        """Return what became of all that was fed; None if containerd has to do it.

        Raises:
            LayerSpaceError: the disk is full.
        """
        await self.end()
        code = self._process.returncode
        if self.lacks_space:
            raise LayerSpaceError
        if code != 0 or not self.is_usable:
            reason = self._output.decode(errors="replace") or f"exit code {code}"
            log.info("layer %s is unpacked by containerd: %s", digest, reason)
            return None
        diff_id, *opaque = self._output.split(b"\0")[:-1]
        return Extracted(diff_id=diff_id.decode(), opaque=tuple(map(os.fsdecode, opaque)))

    def kill(self) -> None:
        """End it."""
        self._close()
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _read_output(self) -> bytes:
        output, said = bytearray(), self._process.stdout
        while said is not None and (piece := await said.read(MAX_OUTPUT_BYTES)):
            output += piece
            if len(output) > MAX_OUTPUT_BYTES:
                self.is_usable = False
                self.kill()
                break
        return bytes(output)

    def _close(self) -> None:
        """Close the pipe: the process sees the end of the layer."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


@asynccontextmanager
async def open_extraction(
    directory: Path, compression: str, *, is_lowest: bool
) -> AsyncIterator[Extraction]:
    """Run a process that unpacks a layer into an empty directory; it ends with the body.

    Raises:
        OSError: it can't be started.
    """
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(ours, False)
        with suppress(OSError):  # a smaller pipe will do
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-ISE", "-c", _BOOT, _find_paths()),
            *(str(directory), compression, "lowest" if is_lowest else "upper"),
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    extraction = Extraction(process, ours)
    try:
        yield extraction
    finally:
        extraction.kill()
        await process.wait()


async def _write(pipe: int, data: bytes) -> None:
    """Write to a pipe that doesn't block.

    Raises:
        OSError: nobody reads it any more.
    """
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(pipe, rest) :]
        except BlockingIOError:
            writable = loop.create_future()
            loop.add_writer(pipe, _wake, writable)
            try:
                await writable
            finally:
                loop.remove_writer(pipe)


def _wake(writable: asyncio.Future[None]) -> None:
    if not writable.done():
        writable.set_result(None)


@cache
def _find_paths() -> str:
    """Return where the program finds this package and the libraries; it looks nowhere else."""
    packages = [Path(fargate_agent.__file__).parent]
    for name in _LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            packages.append(Path(spec.origin).parent)
    return ":".join(dict.fromkeys(str(package.parent) for package in packages))
