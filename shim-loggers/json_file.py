"""Writes what a container prints to a file, one JSON object a line, and rotates the file.

    json-file --log-path FILE [--max-size 10m] [--max-file 2] [--container-id ID] …

`json-file` has checked the simple flags; without others, it has told the shim that the container
may start. What the others need is loaded only for them.

Source: moby, daemon/logger/jsonfilelog/jsonfilelog.go; shim-loggers-for-containerd, README.
"""

import posix
import sys

from local.local_copy import LocalCopy
from reading.deadline import Deadline
from reading.flags import DECIMAL, parse_bool, parse_flags, parse_size
from reading.known_flags import JSON_FILE
from reading.pump import pump
from reading.shim import END_S, catch_signals, tell_ready, write_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from local.compressor import Compressor

PREFIX = "json-file-"
ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
"""Flags with that prefix: what each record tells of the container."""
MAX_LINE_BYTES = 16 * 1024
"""A longer line becomes several records. Source: moby, daemon/logger/copier.go."""


def main() -> None:
    """Log until the container is gone. The first argument is `told`, or `untold`."""
    told = sys.argv.pop(1) == "told"
    flags = parse_flags(sys.argv[1:])
    deadline = Deadline()
    compressor = None
    try:
        check_names(flags)
        compressor = make_compressor(flags)
        max_bytes = parse_size(flags.get("max-size", "0"), DECIMAL)
        max_files = int(flags.get("max-file", "1"))
        attributes = render_attributes(flags, deadline)
        copy = LocalCopy(
            flags["log-path"], max_bytes, max_files, attributes=attributes, compressor=compressor
        )
    except Exception as error:  # noqa: BLE001 - a logger that says nothing counts as ready
        if "fault-path" in flags:
            write_fault(flags["fault-path"], str(error) or repr(error))
        sys.exit(1)
    sigterm_fd = catch_signals(deadline)
    if not told:
        tell_ready()
    try:
        pump(copy.write, MAX_LINE_BYTES, sigterm_fd, deadline, flags.get("fault-path", ""))
    except BaseException as error:
        copy.note(f"json-file: {error!r}")
        raise
    copy.close()
    deadline.begin(END_S)
    if compressor is not None and not compressor.wait(deadline.left_s(END_S)):
        from local.compressor import COMPRESSED, PART, remove

        remove(flags["log-path"] + ".1" + COMPRESSED + PART)
    posix._exit(0)


def check_names(flags: dict[str, str]) -> None:
    """Return if all flags are known ones.

    Raises:
        ValueError: one isn't.
    """
    for name in flags:
        if name not in JSON_FILE:
            raise ValueError("unknown flag: --" + name)


def make_compressor(flags: dict[str, str]) -> "Compressor | None":
    """Return what compresses rotated files, if they shall be.

    Raises:
        ValueError: there will be none.
    """
    if not parse_bool(flags, "compress", default=False):
        return None
    if int(flags.get("max-file", "1")) < 2 or not parse_size(flags.get("max-size", "0"), DECIMAL):
        raise ValueError(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )
    from local.compressor import Compressor

    return Compressor()


def render_attributes(flags: dict[str, str], deadline: Deadline) -> bytes:
    """Return the member `attrs` of every record, and a comma; nothing if there are none.

    Raises:
        OSError, ValueError: as the functions of `sending/tags.py`.
    """
    asked = {name: flags[PREFIX + name] for name in ATTRIBUTES if PREFIX + name in flags}
    if not asked:
        return b""
    for name in ("container-id", "container-name"):
        if name not in flags:
            raise ValueError(f"{name} is required")
    from local.json_text import quote
    from network.connection import Connector
    from sending.destination import Setup
    from sending.reports import Reports
    from sending.tags import load_env, read_attributes, render_tag

    load_env(flags)
    setup = Setup(flags | asked, deadline, Reports("json-file", "", None), None)
    attributes = read_attributes(setup, Connector(flags, deadline))
    if "tag" in asked:
        attributes["tag"] = render_tag(setup.flags)
    pairs = [quote(name) + b":" + quote(attributes[name]) for name in sorted(attributes)]
    return b'"attrs":{%b},' % b",".join(pairs) if pairs else b""
