"""The stdin of a container that is `interactive`: a FIFO that nobody has to hold.

The first process has it open for reading and writing. So it never comes to an end, whoever writes
into it comes and goes, and the agent may be started anew. All functions block.

With a terminal the shim takes a FIFO for stdin. Without one, and with a program as the logger, it
gives a process no stdin; so the OCI runtime is called by a script then, which has it open.
Source: containerd, pkg/process/io.go, `binaryIO`.
"""

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.files import replace_file

_SCRIPT: Final = """\
#!/bin/sh
case " $* " in *" create "*) exec {runtime} "$@" <>{fifo};; esac
exec {runtime} "$@"
"""
"""`<>` waits for no writer. The OCI runtime makes the user of the process the owner of its stdin,
so that it may open /dev/stdin."""

NOEXEC: Final = (
    "a container that is interactive, without pseudoTerminal, needs the agent's state_dir to be"
    " where programs may be run from: it is mounted noexec"
)


def make_fifo(fifo: Path) -> None:
    """Make the FIFO of a container if need be.

    Raises:
        OSError: the disk is full, or the like.
    """
    fifo.parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.mkfifo(fifo, mode=0o600)


def restore_runtime(fifo: Path, runtime: str) -> None:
    """Make that script anew if it is gone, with the directory of the task.

    Without it containerd can't end the container, nor take away what the OCI runtime has of it.

    Raises:
        OSError: the disk is full, or the like.
    """
    if not _find_script(fifo).exists():
        fifo.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        wrap_runtime(fifo, runtime)


def wrap_runtime(fifo: Path, runtime: str) -> str:
    """Return a script that is the OCI runtime, but for the stdin of what it creates.

    It lies beside the FIFO, and is needed until the container is deleted.

    Raises:
        OSError: the disk is full, or the like; or nothing may be run from it.
    """
    if os.statvfs(fifo.parent).f_flag & os.ST_NOEXEC:
        raise OSError(NOEXEC)
    script = _find_script(fifo)
    text = _SCRIPT.format(runtime=shlex.quote(runtime), fifo=shlex.quote(str(fifo)))
    replace_file(script, text, mode=0o700, durable=False)
    return str(script)


def _find_script(fifo: Path) -> Path:
    return fifo.with_name(f"{fifo.name}.runtime")
