"""What a logger tells containerd's shim and the agent, beside what the pipes carry; see pump.py.

Source: containerd, pkg/process/io_util.go and runtime/v2/logging.
"""

import _signal  # type: ignore[import-not-found]  # `signal` loads enum: 5 ms of each start
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reading.deadline import Deadline

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


def write_fault(path: str, text: str, directory: "int | None" = None) -> None:
    """Leave the reason why there is no logger; a relative path counts from the open directory.

    What stands there is taken away first: in another user's directory it may lead elsewhere.

    Raises:
        OSError: it can't be written.
    """
    try:  # noqa: SIM105 - contextlib is not loaded
        posix.unlink(path, dir_fd=directory)
    except FileNotFoundError:
        pass
    modes = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
    fd = posix.open(path, modes, 0o600, dir_fd=directory)
    posix.write(fd, text.encode(errors="replace"))
    posix.close(fd)
