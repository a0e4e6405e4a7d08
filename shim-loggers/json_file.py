"""Writes what a container prints to a file, one JSON object a line, and rotates the file.

    json-file --log-path FILE [--max-size 10m] [--max-file 2] [--container-id ID] …

`json-file` has checked the flags and told the shim that the container may start.
"""

import sys

from flags import DECIMAL, parse_flags, parse_size
from local_copy import LocalCopy
from pump import catch_signals, pump
from spool import Deadline

FLAGS = ("log-path", "max-size", "max-file", "container-id", "container-name")
MAX_LINE_BYTES = 16 * 1024
"""A longer line becomes several records. Source: moby, daemon/logger/copier.go."""


def main() -> None:
    """Log until the container is gone."""
    flags = parse_flags(sys.argv[1:])
    for name in flags:
        if name not in FLAGS:
            raise ValueError("unknown flag --" + name)
    max_files = int(flags.get("max-file", "1"))
    if "log-path" not in flags or max_files < 1:
        raise ValueError("--log-path is required, and --max-file is at least 1")
    copy = LocalCopy(flags["log-path"], parse_size(flags.get("max-size", "0"), DECIMAL), max_files)
    deadline = Deadline()
    sigterm_fd = catch_signals(deadline)
    try:
        pump(copy.write, MAX_LINE_BYTES, sigterm_fd, deadline)
    except BaseException as error:
        copy.note(f"json-file: {error!r}")
        raise
    copy.close()
