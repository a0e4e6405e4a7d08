"""What a plugin has to say besides its answer: to a file if one is named, else to stderr.

The standard output is the answer's alone.
"""

import os
import sys
import time
from typing import Final

LEVELS: Final = ("trace", "debug", "info", "warn", "error", "critical", "off")
"""Source: cihub/seelog, which the originals use."""
DEFAULT_LEVEL: Final = "info"


class Journal:
    """Where one call writes lines."""

    def __init__(self, plugin: str, file: str = "", level: str = DEFAULT_LEVEL) -> None:
        """Without a file only what went wrong is written. A level that isn't known is "info"."""
        self._plugin = plugin
        self._file = file
        wanted = level.strip().lower()
        self._level = LEVELS.index(wanted if wanted in LEVELS else DEFAULT_LEVEL)

    def info(self, text: str) -> None:
        """Write what was done."""
        if self._file:
            self._write("info", text)

    def warn(self, text: str) -> None:
        """Write what went wrong, and isn't the answer."""
        self._write("warn", text)

    def error(self, text: str) -> None:
        """Write what the answer says too."""
        if self._file:  # who gets the answer mostly shows both
            self._write("error", text)

    def _write(self, level: str, text: str) -> None:
        if LEVELS.index(level) < self._level:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f"{now} [{level.upper()}] {self._plugin}: {text}\n"
        if not self._file or not _append(self._file, line):
            sys.stderr.write(line)


def _append(file: str, line: str) -> bool:
    """Whether the line is in the file now."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(file, flags, 0o600)
        try:
            os.write(descriptor, line.encode(errors="replace"))
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True
