"""Programs that make, check and grow file systems: found, run with a deadline, and quoted.

All functions block.
"""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where they are looked for; /usr/sbin is not in everybody's PATH."""
_SAID_BYTES: Final = 500


class NoProgramError(OSError):
    """A program isn't installed."""


def find_program(name: str) -> str | None:
    """Return the path of a program, e.g. `mkfs.ext4`; None: it isn't installed."""
    return shutil.which(name, path=_PATH)


def run_program(
    name: str,
    arguments: Sequence[str],
    *,
    timeout_s: float,
    file: int | None = None,
    good: Sequence[int] = (0,),
) -> None:
    """Run a program to its end; an open `file` is what `/proc/self/fd/<file>` means to it.

    Raises:
        NoProgramError: it isn't installed.
        OSError: it took too long, or its exit code isn't one of `good`; the text has what it said.
    """
    program = find_program(name)
    if program is None:
        raise NoProgramError(0, f"{name} is not installed")
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and no word of a stranger
            [program, *arguments],
            pass_fds=() if file is None else (file,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"PATH": _PATH, "LC_ALL": "C"},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(0, f"{name} did not end within {timeout_s:g} s") from error
    if done.returncode not in good:
        said = (done.stderr or done.stdout)[-_SAID_BYTES:].decode(errors="replace").strip()
        raise OSError(0, f"{name} failed with {done.returncode}: {said}")
