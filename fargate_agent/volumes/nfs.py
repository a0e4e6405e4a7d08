"""NFS of the kernel, mounted through the network of a task.

The client of a mount lives in the network namespace of the thread that makes it, wherever the
mount gets its place. Calls may wait for a server that is gone, so each is made where nobody waits
for it for ever: mounts in a thread of their own, which the end of the process interrupts; unmounts
by umount(8), because what flushes the rest can't be interrupted, and would keep the agent's process
from ending.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

from fargate_agent.network.namespaces import inside
from fargate_agent.volumes.mounts import (
    MOUNT_ATTR_NODEV,
    DetachedMount,
    load_filesystem,
    make_mount,
)

T = TypeVar("T")

NFS: Final = "nfs4"
"""As the kernel names the file system."""

UNMOUNT_TIMEOUT_S: Final = 8.0
"""How long a server may take to say that all is written. The undo of a step has 30 s."""

_VALUES: Final = {
    "vers": "4.1",
    "rsize": "1048576",
    "wsize": "1048576",
    "timeo": "600",
    "retrans": "2",
}
_FLAGS: Final = ("hard", "noresvport")
"""Source: EFS user guide, "Recommended NFS mount options"."""

_IDENTIFIER: Final = "fs/nfs/net/nfs_client/identifier"
"""What tells the clients of network namespaces apart. Two with the same host name and without it
take each other's locks away. Source: Linux, Documentation/filesystems/nfs/client-identifier.rst."""


async def with_deadline(work: Callable[[], T], timeout_s: float, undo: Callable[[T], None]) -> T:
    """Call something that may never return, in a thread of its own.

    If it succeeds after the deadline, or after this was cancelled, `undo` gets what it returned.

    Raises:
        TimeoutError: it didn't return in time.
    """
    call = _Call(work, undo)
    threading.Thread(target=call.run, name="nfs", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            return await call.result()
    except (TimeoutError, asyncio.CancelledError):
        call.abandon()
        raise


class _Call(Generic[T]):
    """A call whose result is either taken or undone."""

    def __init__(self, work: Callable[[], T], undo: Callable[[T], None]) -> None:
        self._work, self._undo = work, undo
        self._loop, self._ready = asyncio.get_running_loop(), asyncio.Event()
        self._lock, self._abandoned = threading.Lock(), False
        self._results: list[T] = []
        self._failure: Exception | None = None

    def run(self) -> None:
        """Make the call, in its thread."""
        try:
            result = self._work()
        except Exception as error:  # noqa: BLE001 - raised where this is awaited
            self._failure = error
        else:
            with self._lock:
                is_late = self._abandoned
                self._results.append(result)
            if is_late:
                self._undo(result)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ready.set)

    async def result(self) -> T:
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self._results[0]

    def abandon(self) -> None:
        """Have the result undone, be it there already or not; waits for nothing."""
        with self._lock:
            self._abandoned = True
            done = list(self._results)
        for result in done:
            threading.Thread(target=self._undo, args=(result,), name="nfs", daemon=True).start()


def make_nfs(netns: Path, identifier: str, source: str, values: dict[str, str]) -> DetachedMount:
    """Mount `HOST:/PATH` through a network namespace, without a place yet; blocks.

    `identifier` names the client of that namespace to servers.

    Raises:
        OSError: the server or the kernel refused it.
    """
    with inside(netns):
        load_filesystem(NFS)
        _name_client(identifier)
        return make_mount(
            NFS, source, flags=_FLAGS, values={**_VALUES, **values}, attributes=MOUNT_ATTR_NODEV
        )


async def unmount_nfs(mountpoint: Path, *, by_force: bool) -> None:
    """Unmount NFS. By force, what isn't written yet is lost, and nobody is waited for.

    Raises:
        OSError: it is still mounted.
        TimeoutError: the server doesn't answer; it may be unmounted.
    """
    options = ("--force", "--lazy") if by_force else ()
    # --internal-only, --no-canonicalize: nothing is looked up on the mount itself
    program = await asyncio.create_subprocess_exec(
        "umount", "--internal-only", "--no-canonicalize", *options, "--", str(mountpoint),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(UNMOUNT_TIMEOUT_S):
            _, said = await program.communicate()
    except (TimeoutError, asyncio.CancelledError):
        with suppress(ProcessLookupError):
            program.send_signal(signal.SIGKILL)
        raise
    if program.returncode:
        raise OSError(f"umount ended with {program.returncode}: {said.decode(errors='replace')}")


def render_source(host: str, path: str) -> str:
    """Return what is mounted, as mount(8) names it.

    Example:
        >>> render_source("fd00::1", "/data")
        '[fd00::1]:/data'
    """
    return f"[{host}]:{path}" if ":" in host else f"{host}:{path}"


def render_security(*, tls: bool) -> dict[str, str]:
    """Return the options for TLS, or none. Source: nfs(5), `xprtsec`; Linux 6.5 or later."""
    return {"xprtsec": "tls"} if tls else {}


def render_addresses(address: str, port: int, client: str) -> dict[str, str]:
    """Return the options for a server at this address and a client at that. Source: nfs(5)."""
    return {
        "proto": "tcp6" if ":" in address else "tcp",
        "port": str(port),
        "addr": address,
        "clientaddr": client,
    }


def _name_client(identifier: str) -> None:
    """Give the NFS client of this thread's network namespace a name of its own."""
    sysfs = make_mount("sysfs", "sysfs")
    try:
        sysfs.reach(_IDENTIFIER).write_text(identifier)
    finally:
        sysfs.close()
