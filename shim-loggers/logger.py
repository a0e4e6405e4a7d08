"""Sends what a container prints to a destination in the network, and keeps a copy on this machine.

    logger --log-driver DRIVER --container-id ID --container-name NAME [--log-path FILE] …

Two threads: this one reads the pipes, writes the copy and fills the spool; another one sends. What
can't be set up ends this program before the container starts, and the file `--fault-path` says why.
"""

import posix
import sys
from _queue import Empty
from _thread import stack_size, start_new_thread

from flags import DECIMAL, parse_buffer_size, parse_flags, parse_size
from lines import Lines
from local_copy import LocalCopy
from pump import END_S, STDOUT_FD, catch_signals, has_ended, pump, tell_ready
from reports import Reports
from sender import Destination, Sender, Setup
from spool import Deadline, Spool

O_PATH = posix.O_PATH | posix.O_CLOEXEC
STACK_BYTES = 256 * 1024
REQUIRED = ("container-id", "container-name", "log-driver")
"""In the order in which shim-loggers-for-containerd asks for them."""
FLAGS = (
    *REQUIRED,
    *("log-path", "copy-max-size", "copy-max-file", "fault-path"),
    *("mode", "max-buffer-size", "uid", "gid"),
    *("netns", "dns-servers", "dns-search"),
)
"""Of every driver."""
DRIVERS = {
    "awslogs": "to_awslogs",
    "fluentd": "to_fluentd",
    "gelf": "to_gelf",
    "journald": "to_journald",
    "splunk": "to_splunk",
    "syslog": "to_syslog",
}
"""Names of modules."""
MODES = ("blocking", "non-blocking")


def main() -> None:
    """Log until the container is gone."""
    flags = parse_flags(sys.argv[1:])
    # Opened as root: another user may own this directory, and not pass those that lead to it.
    fault_directory = posix.open(flags.get("fault-path", "/").rpartition("/")[0] or "/", O_PATH)
    try:
        setup = _set_up(flags)
        sigterm_fd = catch_signals(setup.deadline)
        destination = _make_destination(setup)
        spool = _make_spool(flags, destination)
        _drop_rights(flags)
        destination.open()
    except (OSError, ValueError) as error:
        _say_why(flags, fault_directory, error)
        posix._exit(1)
    tell_ready()
    stack_size(STACK_BYTES)
    sender = Sender(destination, spool, setup.deadline, setup.reports)
    start_new_thread(sender.run, ())
    _log(setup, spool, sender, destination, sigterm_fd)
    posix._exit(0)  # whatever the sender hangs in


def _log(
    setup: Setup, spool: Spool, sender: Sender, destination: Destination, sigterm_fd: int
) -> None:
    """Read until the pipes end, and wait until all is sent or the time is over."""

    def give(lines: Lines) -> None:
        if setup.copy is not None:
            setup.copy.write(lines)
        spool.put(lines, is_over)

    def is_over() -> bool:
        # While nobody reads the pipes: the logger of a terminal gets no SIGTERM.
        if has_ended(STDOUT_FD):
            setup.deadline.begin(END_S)
        return setup.deadline.is_over()

    pump(give, destination.max_line_bytes, sigterm_fd, setup.deadline)
    setup.deadline.begin(END_S)
    spool.close()
    try:
        sender.ended.get(timeout=setup.deadline.left_s(END_S) + 1)
    except Empty:
        setup.reports.trouble("the destination hangs")
    lost = sender.count_left()
    if lost or spool.dropped or destination.refused:
        setup.reports.loss(
            f"{lost} lines not delivered in time, {spool.dropped} dropped for want of room, "
            f"{destination.refused} refused by the destination"
        )
    if setup.copy is not None:
        setup.copy.close()


def _set_up(flags: dict[str, str]) -> Setup:
    for name in REQUIRED:
        if name not in flags:
            raise ValueError(f"{name} is required")
    if flags["log-driver"] not in DRIVERS:
        raise ValueError(f"unknown log driver: {flags['log-driver']}")
    copy = None
    if "log-path" in flags:
        max_bytes = parse_size(flags.get("copy-max-size", "0"), DECIMAL)
        copy = LocalCopy(flags["log-path"], max_bytes, int(flags.get("copy-max-file", "1")))
    reports = Reports(flags["log-driver"], flags["container-id"], copy)
    return Setup(flags, Deadline(), reports, copy)


def _make_spool(flags: dict[str, str], destination: Destination) -> Spool:
    mode = flags.get("mode", "blocking")
    if mode not in MODES:
        raise ValueError(f"unknown mode type: {mode}")
    return Spool(
        parse_buffer_size(flags),
        blocking=mode == "blocking",
        max_lines=destination.max_waiting_lines,
    )


def _make_destination(setup: Setup) -> Destination:
    """Load the driver's own module; it has a function `make`, and the names of its `FLAGS`."""
    module = __import__(DRIVERS[setup.flags["log-driver"]])
    for name in setup.flags:
        if name not in (*FLAGS, *module.FLAGS):
            raise ValueError(f"unknown flag: --{name}")
    destination: Destination = module.make(setup)
    return destination


def _drop_rights(flags: dict[str, str]) -> None:
    """Become the user and group that `--uid` and `--gid` name, and nobody else's friend."""
    uid, gid = int(flags.get("uid", "-1")), int(flags.get("gid", "-1"))
    if 0 in (uid, gid):
        raise ValueError("uid and gid can't be 0")
    if uid > 0 or gid > 0:
        posix.setgroups([])
    if gid > 0:
        posix.setresgid(gid, gid, gid)
    if uid > 0:
        posix.setresuid(uid, uid, uid)


def _say_why(flags: dict[str, str], fault_directory: int, error: Exception) -> None:
    text = str(error) or repr(error)
    Reports(flags.get("log-driver", "logger"), flags.get("container-id", ""), None).loss(text)
    if "fault-path" in flags:
        name = flags["fault-path"].rpartition("/")[2]
        modes = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC
        fd = posix.open(name, modes, 0o600, dir_fd=fault_directory)
        posix.write(fd, text.encode(errors="replace"))
        posix.close(fd)
