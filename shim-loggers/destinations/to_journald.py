"""Sends lines to systemd's journal.

Source: systemd.io, "Native Journal Protocol"; moby, daemon/logger/journald.
"""

import fcntl
import posix
import sys
import time
from _socket import SCM_RIGHTS, SOCK_DGRAM, SOL_SOCKET, socket

from network.connection import Connector
from sending.datagrams import TOO_LONG, DatagramDestination
from sending.destination import SEVERITIES
from sending.reports import JOURNAL
from sending.tags import load_env, read_attributes, read_name, render_tag, shorten_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reading.lines import Lines
    from sending.destination import Setup

NO_BUFFER = 105
"""ENOBUFS; see errno(3)."""
ADD_SEALS, ALL_SEALS = 1033, 0xF
"""F_ADD_SEALS; against sealing, shrinking, growing and writing. Source: fcntl(2), linux/fcntl.h."""


class Journal(DatagramDestination):
    """The journal of this machine."""

    def __init__(self, setup: "Setup") -> None:
        self._connector = Connector(setup.flags, setup.deadline)
        self._path = setup.flags.get("journald-socket", JOURNAL)
        self._tag = render_tag(setup.flags)
        self._fields = b""
        connect = lambda: self._connector.connect_unix(self._path, SOCK_DGRAM)  # noqa: E731
        super().__init__(setup, connect, self._render)

    def open(self) -> None:
        flags = self._setup.flags
        fields = {
            "CONTAINER_ID": shorten_id(flags["container-id"]),
            "CONTAINER_ID_FULL": flags["container-id"],
            "CONTAINER_NAME": read_name(flags),
            "CONTAINER_TAG": self._tag,
            "IMAGE_NAME": flags.get("container-image-name", ""),
            "SYSLOG_IDENTIFIER": self._tag,
        }
        for name, value in read_attributes(self._setup, self._connector).items():
            fields[render_name(name)] = value
        fields.pop("", None)
        self._fields = b"".join([render_field(*field) for field in fields.items()])
        try:
            super().open()
        except OSError as error:
            raise OSError("journald is not enabled on this host") from error

    def send(self, sock: socket, message: bytes) -> None:
        try:
            sock.send(message)
        except OSError as error:
            if error.errno not in (TOO_LONG, NO_BUFFER):
                raise
            send_file(sock, message)

    def _render(self, lines: "Lines") -> list[bytes]:
        fields = self._fields + self._render_own(lines)
        return [b"MESSAGE=%b\n%b" % (line, fields) for line in lines.text.split(b"\n")]

    def _render_own(self, lines: "Lines") -> bytes:
        """Render what holds for these lines only."""
        seconds, nanoseconds = divmod(lines.time_ns, 10**9)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        text = f"PRIORITY={SEVERITIES[lines.stream]}\n"
        text += f"SYSLOG_TIMESTAMP={moment}.{nanoseconds:09}Z\n"
        if lines.partial:
            name, number, last = lines.partial
            text += f"CONTAINER_PARTIAL_ID={name}\nCONTAINER_PARTIAL_ORDINAL={number}\n"
            text += "CONTAINER_PARTIAL_LAST=" + ("true\n" if last else "false\n")
            text += "" if last else "CONTAINER_PARTIAL_MESSAGE=true\n"
        return text.encode()


def make(setup: "Setup") -> Journal:
    """Read the flags.

    Raises:
        ValueError: the tag can't be.
        OSError: the container's environment can't be read.
    """
    load_env(setup.flags)
    return Journal(setup)


def render_name(name: str) -> str:
    """Make a field's name of a label's: capital letters, and inside digits and underscores."""
    upper = "".join([c.upper() if c.isascii() and c.isalnum() else "_" for c in name])
    return upper.lstrip("_0123456789")


def render_field(name: str, value: str) -> bytes:
    """Render a field; a value of several lines has its length in front."""
    data = value.encode(errors="replace")
    if b"\n" not in data:
        return b"%b=%b\n" % (name.encode(), data)
    return b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


def send_file(sock: socket, message: bytes) -> None:
    """Send what is too long for a datagram as a file that can't be changed any more.

    Raises:
        OSError: it can't be sent.
    """
    file = posix.memfd_create("log", posix.MFD_ALLOW_SEALING | posix.MFD_CLOEXEC)
    try:
        view = memoryview(message)
        while view:
            view = view[posix.write(file, view) :]
        fcntl.fcntl(file, ADD_SEALS, ALL_SEALS)
        sock.sendmsg([b""], [(SOL_SOCKET, SCM_RIGHTS, file.to_bytes(4, sys.byteorder))])
    finally:
        posix.close(file)
