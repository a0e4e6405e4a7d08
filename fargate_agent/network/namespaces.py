"""Network namespaces by system call, in threads, without a child process.

A namespace belongs to a thread, not to a process. So a new one is made by a thread that steps into
it and back, and a socket is opened inside one by a thread that does nothing else in between. A
thread that can't step back ends the process: all it opened from then on would be in the wrong
place, and the next agent adopts the tasks.
"""

import ctypes
import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:  # programs that end within milliseconds use this: it takes two to load
    from pathlib import Path

CLONE_NEWNET: Final = 0x40000000
"""Source: Linux, include/uapi/linux/sched.h."""
MS_BIND: Final = 4096
"""Source: Linux, include/uapi/linux/mount.h."""
MNT_DETACH: Final = 2
"""Source: umount(2)."""
_NETNS_OF_PROCESS: Final = "/proc/self/ns/net"


def is_netns(path: "Path") -> bool:
    """Whether a namespace is mounted on the path, and not just a file left by a crash.

    All namespaces lie on the one file system `nsfs`.
    """
    try:
        return path.stat().st_dev == os.stat(_NETNS_OF_PROCESS).st_dev  # noqa: PTH116 - no Path
    except FileNotFoundError:
        return False


def make_netns() -> io.FileIO:
    """Make a network namespace that lives as long as the file that is returned.

    Blocks; call it in a thread.

    Raises:
        OSError: the kernel refused it.
    """
    home = _home()
    _check("unshare", _libc().unshare(CLONE_NEWNET))
    try:
        # Not /proc/self: that is the namespace of the main thread.
        return io.FileIO("/proc/thread-self/ns/net")
    finally:
        _return_to(home)


def mount_netns(namespace: io.FileIO, path: "Path") -> None:
    """Give a namespace a name in the file system, so that it outlives this process.

    Blocks; call it in a thread.

    Raises:
        OSError: the kernel refused it.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)  # as `ip netns` makes it, whatever the umask
    source = f"/proc/self/fd/{namespace.fileno()}"
    path.touch(mode=0o444)
    try:
        _mount(source, path)
    except FileNotFoundError:
        # Another agent's sweep took the empty file for a left-over of its own.
        path.touch(mode=0o444)
        _mount(source, path)


def unmount_netns(path: "Path") -> None:
    """Take the name away; the namespace goes when nobody uses it any more.

    Blocks; call it in a thread.

    Raises:
        OSError: the kernel refused it.
    """
    while is_netns(path):
        _check("umount", _libc().umount2(os.fsencode(path), MNT_DETACH))
    path.unlink(missing_ok=True)


@contextmanager
def inside(netns: "Path | str") -> Iterator[None]:
    """Run the body, on this thread, inside the namespace. The body must not await.

    Raises:
        OSError: there is no such namespace.
    """
    home = _home()
    namespace = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check("setns", _libc().setns(namespace, CLONE_NEWNET))
    finally:
        os.close(namespace)
    try:
        yield
    finally:
        _return_to(home)


def socket_in_netns(netns: "Path", family: int, type: int, proto: int = 0) -> socket.socket:
    """Open a socket inside the namespace; it stays there wherever it is used.

    Takes some 10 µs and needs no thread. The socket is not inherited by programs.

    Raises:
        OSError: there is no such namespace, or the kernel refused the socket.
    """
    with inside(netns):
        return socket.socket(family, type, proto)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _home() -> int:
    return os.open(_NETNS_OF_PROCESS, os.O_RDONLY | os.O_CLOEXEC)


def _mount(source: str, path: "Path") -> None:
    _check("mount", _libc().mount(source.encode(), os.fsencode(path), b"none", MS_BIND, None))


def _return_to(home: int) -> None:
    if _libc().setns(home, CLONE_NEWNET) != 0:
        _give_up()


def _give_up() -> NoReturn:
    import logging

    reason = os.strerror(ctypes.get_errno())
    logging.getLogger(__name__).critical("a thread can't leave a network namespace: %s", reason)
    os._exit(os.EX_OSERR)


def _check(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
