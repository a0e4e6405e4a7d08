"""TLS of NFS: a tlshd(8) in the network namespace of each task that has such a volume.

The kernel has a program shake hands for it, and asks only one that listens in the network namespace
of the connection. Source: Linux, Documentation/networking/tls-handshake.rst; net/handshake.
"""

import asyncio
import logging
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

PROGRAM: Final = "tlshd"
_PROGRAMS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READY_TIMEOUT_S: Final = 3.0
_POLL_S: Final = 0.02
_PAUSE_S: Final = 1.0
"""Before one that has ended is started again."""
_END_TIMEOUT_S: Final = 3.0
_GENERIC: Final = "16"
"""Source: Linux, include/uapi/linux/netlink.h, NETLINK_GENERIC."""
_PORT_PID: Final = 0x3FFFFF
"""The part of a port that is the id of the process. Source: libnl, lib/socket.c."""


class TlsHandshakes:
    """Runs the programs, which end with this process; the next one starts them anew."""

    def __init__(self) -> None:
        """Start none yet."""
        self._users: dict[Path, set[Path]] = {}
        self._keepers: dict[Path, asyncio.Task[None]] = {}
        self._ready: dict[Path, asyncio.Future[None]] = {}

    async def ensure(self, netns: Path, user: Path) -> None:
        """Return when one listens in a namespace; it does until its last user is released.

        Raises:
            OSError: it isn't installed, or ends at once.
        """
        self._users.setdefault(netns, set()).add(user)
        if netns not in self._keepers or self._keepers[netns].done():
            ready = asyncio.get_running_loop().create_future()
            self._ready[netns] = ready
            self._keepers[netns] = asyncio.create_task(_keep(netns, ready))
        await asyncio.shield(self._ready[netns])

    async def release(self, netns: Path, user: Path) -> None:
        """End it if nobody else uses it."""
        users = self._users.get(netns, set())
        users.discard(user)
        if not users:
            await self._end(netns)

    async def close(self) -> None:
        """End all of them."""
        for netns in list(self._users):
            await self._end(netns)

    async def _end(self, netns: Path) -> None:
        self._users.pop(netns, None)
        if (ready := self._ready.pop(netns, None)) is not None:
            ready.cancel()
        if (keeper := self._keepers.pop(netns, None)) is not None:
            keeper.cancel()
            await asyncio.wait([keeper])


def find_program() -> str | None:
    """Return the path of tlshd; None if it isn't installed."""
    return shutil.which(PROGRAM, path=_PROGRAMS)


async def _keep(netns: Path, ready: asyncio.Future[None]) -> None:
    """Start the program, and again whenever it ends, until cancelled.

    If the first start fails, `ready` has the error.
    """
    while True:
        try:
            process = await _start(netns)
        except OSError as error:
            if not ready.done():
                ready.set_exception(error)
                return
            log.warning("%s can't be started again: %s", PROGRAM, error)
        else:
            if not ready.done():
                ready.set_result(None)
            try:
                await process.wait()
            finally:
                await _kill(process)
            log.warning("%s ended with %s; it is started again", PROGRAM, process.returncode)
        await asyncio.sleep(_PAUSE_S)


async def _start(netns: Path) -> asyncio.subprocess.Process:
    program = find_program()
    if program is None:
        raise OSError(0, f"{PROGRAM} of the package ktls-utils is not installed on this machine")
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "--", "nsenter", f"--net={netns}", "--", program),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,  # it tells the journal
        cwd="/",
        env={"PATH": _PROGRAMS},
        start_new_session=True,
    )
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_TIMEOUT_S):
                while process.returncode is None and not _listens(process.pid):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        if process.returncode is not None:
            raise OSError(0, f"{PROGRAM} ended with {process.returncode}: journalctl -t {PROGRAM}")
    except BaseException:
        await _kill(process)
        raise
    return process


def _listens(pid: int) -> bool:
    """Whether a process hears what the kernel asks. Source: Linux, net/netlink/af_netlink.c."""
    try:
        lines = Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]
    except OSError:
        return False
    sockets = (line.split() for line in lines)
    return any(
        kind == _GENERIC and int(port) & _PORT_PID == pid and int(groups, 16)
        for _, kind, port, groups, *_ in sockets
    )


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the program, and those of its children that shake hands."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_TIMEOUT_S):
            await process.wait()
