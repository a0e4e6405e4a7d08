"""Sends what a container prints to a destination in the network, and keeps a copy on this machine.

    logger --log-driver DRIVER --container-id ID --container-name NAME [--log-path FILE] …

What can't be set up ends this program before the container starts, and the file `--fault-path` says
why. What is needed only then, is loaded while the container is made; see sending/delivery.py.
"""

import posix
import sys

from local.local_copy import LocalCopy
from reading.deadline import Deadline
from reading.flags import DECIMAL, parse_buffer_size, parse_flags, parse_size
from reading.known_flags import DESTINATIONS, LOGGER
from reading.shim import catch_signals, tell_ready, write_fault
from sending.destination import Destination, Setup
from sending.reports import Reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

O_PATH = posix.O_PATH | posix.O_CLOEXEC
O_RDONLY = posix.O_RDONLY | posix.O_CLOEXEC
UMASK = 0o027
CLONE_NEWNET = 0x40000000
"""Source: setns(2), linux/sched.h."""
REQUIRED = ("container-id", "container-name", "log-driver")
"""In the order in which shim-loggers-for-containerd asks for them."""
LATER = ("sending.delivery", "network.endpoints", "local.json_text", "network.nameservers")
"""Modules of ours that are loaded when they are needed, which may be after `_drop_rights`."""
MODES = ("blocking", "non-blocking")


def main() -> None:
    """Log until the container is gone."""
    posix.umask(UMASK)
    flags = parse_flags(sys.argv[1:])
    # Opened as root: another user may own this directory, and not pass those that lead to it.
    fault_directory = posix.open(flags.get("fault-path", "/").rpartition("/")[0] or "/", O_PATH)
    try:
        _enter_network(flags)
        setup = _set_up(flags)
        sigterm_fd = catch_signals(setup.deadline)
        destination = _make_destination(setup)
        buffer = _read_buffer(flags)
        _drop_rights(flags)
        destination.open()
    except Exception as error:  # noqa: BLE001 - a logger that says nothing counts as ready
        _say_why(flags, fault_directory, error)
        posix._exit(1)
    tell_ready()
    from sending.delivery import deliver

    deliver(setup, destination, buffer, sigterm_fd)
    posix._exit(0)  # whatever the sender hangs in


def _enter_network(flags: dict[str, str]) -> None:
    """Reach whatever this connects to through the interface of the task."""
    if "netns" not in flags:
        return
    from sending.libc import call

    fd = posix.open(flags["netns"], O_RDONLY)
    if call("setns", fd, CLONE_NEWNET):
        raise OSError(f"can't enter {flags['netns']}")
    posix.close(fd)


def _read_buffer(flags: dict[str, str]) -> tuple[int, bool]:
    """Return the budget in bytes, and whether the container waits when it is used up."""
    mode = flags.get("mode", "blocking")
    if mode not in MODES:
        raise ValueError(f"unknown mode type: {mode}")
    return parse_buffer_size(flags), mode == "blocking"


def _set_up(flags: dict[str, str]) -> Setup:
    for name in REQUIRED:
        if name not in flags:
            raise ValueError(f"{name} is required")
    if flags["log-driver"] not in DESTINATIONS:
        raise ValueError(f"unknown log driver: {flags['log-driver']}")
    copy = None
    if "log-path" in flags:
        max_bytes = parse_size(flags.get("copy-max-size", "0"), DECIMAL)
        copy = LocalCopy(flags["log-path"], max_bytes, int(flags.get("copy-max-file", "1")))
    reports = Reports(flags["log-driver"], flags["container-id"], copy)
    return Setup(flags, Deadline(), reports, copy)


def _make_destination(setup: Setup) -> Destination:
    driver = setup.flags["log-driver"]
    check_names(setup.flags, driver)
    destination: Destination = load_driver(driver).make(setup)
    return destination


def check_names(flags: dict[str, str], driver: str) -> None:
    """Return if all flags are those of a driver.

    Raises:
        ValueError: one isn't.
    """
    for name in flags:
        if name not in LOGGER and name not in DESTINATIONS[driver]:
            raise ValueError(f"unknown flag: --{name}")


def load_driver(name: str) -> "ModuleType":
    """Load the driver's own module; it has a function `make`."""
    return __import__(f"destinations.to_{name}", fromlist=("make",))


def _drop_rights(flags: dict[str, str]) -> None:
    """Become the user and group that `--uid` and `--gid` name, and nobody else's friend."""
    uid, gid = int(flags.get("uid", "-1")), int(flags.get("gid", "-1"))
    if 0 in (uid, gid):
        raise ValueError("uid and gid can't be 0")
    if uid > 0 or gid > 0:
        for module in LATER:
            __import__(module)  # it may lie where only root gets
        posix.setgroups([])
    if gid > 0:
        posix.setresgid(gid, gid, gid)
    if uid > 0:
        posix.setresuid(uid, uid, uid)


def _say_why(flags: dict[str, str], fault_directory: int, error: Exception) -> None:
    text = str(error) or repr(error)
    Reports(flags.get("log-driver", "logger"), flags.get("container-id", ""), None).loss(text)
    if "fault-path" in flags:
        write_fault(flags["fault-path"].rpartition("/")[2], text, fault_directory)
