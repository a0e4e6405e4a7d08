"""What a logger and containerd's shim tell each other, beside what the pipes carry; see pump.py.

Source: containerd, pkg/process/io_util.go and runtime/v2/logging.
"""

import _signal  # type: ignore[import-not-found]  # `signal` loads enum: 5 ms of each start
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from deadline import Deadline

READY_FD = 5
END_S = 9
"""From SIGTERM, or the end of a pipe, to the end of everything, whatever happens. The shim kills
12 s after SIGTERM."""


def catch_signals(deadline: "Deadline") -> int:
    """Begin the end when SIGTERM comes; return a file descriptor that is readable from then on."""
    noticed, notice = posix.pipe()
    posix.set_blocking(notice, False)
    _signal.set_wakeup_fd(notice)
    _signal.signal(_signal.SIGTERM, lambda number, frame: deadline.begin(END_S))
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    return noticed


def tell_ready() -> None:
    """Let the container start."""
    posix.write(READY_FD, b"\0")
    posix.close(READY_FD)
