"""Reads both pipes until they end, and gives on what they hold.

containerd's shim starts a logger once per container: fd 3 is the container's stdout, fd 4 its
stderr, fd 5 says that the container may start. 0, 1 and 2 are /dev/null, and the environment is
empty. The shim keeps the pipes open until the container is deleted; then they end, SIGTERM follows
at once and SIGKILL 12 s later. So SIGTERM only says that the end is near: what the pipes hold is
still read.

Only modules that every interpreter has loaded, or that are a few kB: each container pays for them.

Source: containerd, pkg/process/io_util.go, runtime/v2/logging and, for terminals,
runtime/v2/runc/platform.go.
"""

import posix
import select
import time

from reading.deadline import Deadline
from reading.host_paths import without_host_paths
from reading.lines import Lines, Splitter
from reading.shim import END_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STDOUT_FD = 3
STDERR_FD = 4
STREAMS = {STDOUT_FD: "stdout", STDERR_FD: "stderr"}
READ_BYTES = 32 * 1024
QUIET_MS = 2000
"""After stdout has ended, or SIGTERM, what is left is given up when nothing comes for so long. The
stderr of a container with a terminal says nothing: the shim opens it and forgets the other end, so
it ends whenever the shim collects its garbage, or never."""
MAX_LATE_READS = 64
"""After that end, so much is still read to be written down, or counted as lost, at least."""


def has_ended(fd: int) -> bool:
    """Whether nobody can write to a pipe any more; what it holds may still be unread."""
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))


def pump(
    give: "Callable[[Lines], None]",
    max_line_bytes: int,
    sigterm_fd: int,
    deadline: Deadline,
    fault_path: str,
) -> None:
    """Give on what both pipes hold until they end; see `QUIET_MS` and `END_S`.

    `fault_path` is the logger's flag; what runC says is given on without paths of the host.
    """
    splitters = {fd: Splitter(name, max_line_bytes) for fd, name in STREAMS.items()}
    poller = select.poll()
    for fd in (*splitters, sigterm_fd):
        poller.register(fd, select.POLLIN)
    timeout_ms, late = None, 0
    while splitters and late < MAX_LATE_READS:
        late += deadline.is_over()
        ready = poller.poll(0 if late else timeout_ms)
        if not ready:
            break
        for fd, _ in ready:
            if fd in splitters and (data := posix.read(fd, READ_BYTES)):
                data = without_host_paths(data, fault_path)
                _give_all(give, splitters[fd].take(data, time.time_ns()))
                continue
            _finish(give, splitters, fd)
            poller.unregister(fd)
            if fd != STDERR_FD:
                deadline.begin(END_S)
                timeout_ms = QUIET_MS
    for fd in tuple(splitters):
        _finish(give, splitters, fd)


def _finish(give: "Callable[[Lines], None]", splitters: dict[int, Splitter], fd: int) -> None:
    """Give on what is left of a pipe; nothing if there is none with this number."""
    if fd in splitters:
        _give_all(give, splitters.pop(fd).finish(time.time_ns()))


def _give_all(give: "Callable[[Lines], None]", taken: list[Lines]) -> None:
    for lines in taken:
        give(lines)
