"""NFS of the kernel, mounted through the network of a task.

The client of a mount lives in the network namespace of the thread that makes it, wherever the
mount gets its place. Calls may wait for a server that is gone, so each is made where nobody waits
for it for ever: mounts `with_deadline`, in threads that the end of the process interrupts; unmounts
by umount(8), because what flushes the rest can't be interrupted, and would keep the agent's process
from ending.
"""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.network.namespaces import inside
from fargate_agent.volumes.mounts import (
    MOUNT_ATTR_NODEV,
    DetachedMount,
    load_filesystem,
    make_mount,
)

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
