"""Turns of calls that run side by side, in files that only root can open.

Whoever can open a file can lock it, also for ever; so none is used that others can.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fargate_agent.cniplugins.errors import IO_FAILURE, TRY_AGAIN_LATER, CniError

DIRECTORY: Final = "/run/fargate-cni"
TIMEOUT_S: Final = 30.0
"""A turn takes milliseconds; a runtime waits for a minute or more."""
_POLL_S: Final = 0.003


@contextmanager
def turn(name: str, timeout_s: float = TIMEOUT_S, directory: str = DIRECTORY) -> Iterator[None]:
    """Run the body while no other process has the turn of that name on this machine.

    The kernel ends the turn of a process that ends.

    Raises:
        CniError: another one had it for all that time, or others can open the directory.
        OSError: there can't be such a file.
    """
    _ensure(directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(f"{directory}/{name}.lock", flags, 0o600)
    try:
        _wait(descriptor, name, timeout_s)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, name: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                text = f"timeout: others have had the turn of {name} for {timeout_s:g} s"
                raise CniError(text, TRY_AGAIN_LATER) from error
            time.sleep(_POLL_S)
        else:
            return


def _ensure(directory: str) -> None:
    try:
        os.mkdir(directory, 0o700)  # noqa: PTH102 - pathlib takes too long to load
    except FileExistsError:
        found = os.lstat(directory)
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if not is_ours or found.st_mode & 0o022:
            text = f"{directory} has to be a directory that nobody else writes to"
            raise CniError(text, IO_FAILURE) from None
        if found.st_mode & 0o077:
            os.chmod(directory, 0o700)  # noqa: PTH101
