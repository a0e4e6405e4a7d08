"""A program that becomes a logger, in the groups and with the descriptors that it is told.

    python -I -S logger_start.py DIRECTORY STDOUT,STDERR,READY,… GROUP… -- PROGRAM ARGUMENT…

The logger is nobody's child and has a session of its own: it outlives who started it. A group is
the directory of one. It loads nothing of the agent.
"""

import os
import signal
import sys
from pathlib import Path

FIRST = 3
"""The descriptors of a logger. Source: containerd, pkg/process/io_util.go."""
ENVIRONMENT = ("CONTAINER_ID", "CONTAINER_NAMESPACE")
"""Source: containerd, runtime/v2/logging."""


def main() -> None:
    """Become the logger; this process itself ends when that is in its groups, or can't be."""
    directory, descriptors, *rest = sys.argv[1:]
    cut = rest.index("--")
    groups, arguments = rest[:cut], rest[cut + 1 :]
    joined, tell = os.pipe()
    if os.fork():  # this process is never in the groups: whoever finds one there finds the logger
        os.close(tell)
        os._exit(0 if os.read(joined, 1) else 1)
    for group in groups:
        Path(group, "cgroup.procs").write_text("0")  # which is who writes; see cgroups(7)
    os.write(tell, b"!")
    os.close(joined)
    os.close(tell)
    os.setsid()
    os.chdir(directory)
    for target, source in enumerate(map(int, descriptors.split(",")), FIRST):
        os.dup2(source, target)
        os.close(source)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
    environment = {name: os.environ[name] for name in ENVIRONMENT}
    os.execve(arguments[0], arguments, environment)  # noqa: S606 - what the shim would start


if __name__ == "__main__":
    main()
