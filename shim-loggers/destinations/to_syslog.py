"""Sends lines to a syslog server.

Framed as Docker does it: over a stream a newline ends a message; only RFC 5424 over TLS says the
length of a message in front of it.

Source: moby, daemon/logger/syslog; srslog, which it uses; RFC 3164, 5424, 5425 and 5426.
"""

import posix
import time
from _socket import SOCK_DGRAM

from network.connection import Address, Connector, make_tls_context, parse_address
from reading.flags import parse_bool
from sending.destination import SEVERITIES
from sending.tags import render_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from network.connection import Socket
    from reading.lines import Lines
    from sending.destination import Destination, Setup

LOCAL = "unixgram:///dev/log"
SCHEMES = ("tcp", "tcp+tls", "udp", "unix", "unixgram")
PORT = 514
FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news"),
    *("uucp", "cron", "authpriv", "ftp", "", "", "", ""),
    *("local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)
"""By number. Source: moby, daemon/logger/syslog."""
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")


class Format:
    """Renders what stands in front of each line."""

    def __init__(self, name: str, facility: int, tag: str) -> None:
        self._name = name
        self._facility = facility
        self._tag = tag
        self._host = posix.uname().nodename
        self._pid = posix.getpid()

    def render_head(self, lines: "Lines") -> bytes:
        """Render it. RFC 3164 knows local time only; the formats of RFC 5424 get UTC."""
        priority = self._facility << 3 | SEVERITIES[lines.stream]
        seconds, nanoseconds = divmod(lines.time_ns, 10**9)
        tag, host, pid = self._tag, self._host, self._pid
        if not self._name.startswith("rfc5424"):
            moment = time.strftime("%b %e %H:%M:%S", time.localtime(seconds))
            place = host + " " if self._name else ""
            return f"<{priority}>{moment} {place}{tag}[{pid}]: ".encode()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        if self._name == "rfc5424micro":
            moment += f".{nanoseconds // 1000:06}"
        return f"<{priority}>1 {moment}Z {host} {tag} {pid} {tag} - ".encode()

    def split(self, lines: "Lines") -> list[bytes]:
        """Make one message of each line."""
        head = self.render_head(lines)
        return [head + line for line in lines.text.split(b"\n")]

    def join(self, lines: "Lines") -> bytes:
        """Make messages that end with a newline."""
        head = self.render_head(lines)
        return head + lines.text.replace(b"\n", b"\n" + head) + b"\n"

    def count(self, lines: "Lines") -> bytes:
        """Make messages that begin with their length."""
        return b"".join([b"%d %b" % (len(message), message) for message in self.split(lines)])


def make(setup: "Setup") -> "Destination":
    """Read the flags.

    Raises:
        ValueError: one of them can't be.
        OSError: the certificates can't be read.
    """
    flags = setup.flags
    address = _parse_address(flags.get("syslog-address", LOCAL))
    name = flags.get("syslog-format", "")
    if name not in FORMATS:
        raise ValueError("Invalid syslog format")
    facility = _parse_facility(flags.get("syslog-facility", "daemon"))
    form = Format(name, facility, render_tag(flags))
    if address.scheme in ("udp", "unixgram"):
        return _make_datagrams(setup, address, form)
    from sending.stream import Stream, StreamDestination

    encrypted = address.scheme == "tcp+tls"
    encode = form.count if encrypted and name.startswith("rfc5424") else form.join
    stream = Stream(_make_connect(setup, address), setup.deadline, encrypted=encrypted)
    return StreamDestination(stream, encode, b"\n")


def _make_datagrams(setup: "Setup", address: Address, form: Format) -> "Destination":
    from sending.datagrams import DatagramConnector, DatagramDestination

    connector = DatagramConnector(setup.flags, setup.deadline)
    host, port, path = address.host, address.port, address.path
    if address.scheme == "udp":
        connect = lambda: connector.connect_udp(host, port)  # noqa: E731 - one of two
        return DatagramDestination(setup, connect, form.split, lossy=True)
    connect = lambda: connector.connect_unix(path, SOCK_DGRAM)  # noqa: E731 - as above
    return DatagramDestination(setup, connect, form.split)


def _make_connect(setup: "Setup", address: Address) -> "Callable[[], Socket]":
    host, port, flags = address.host, address.port, setup.flags
    connector = Connector(flags, setup.deadline)
    if address.scheme == "unix":
        return lambda: connector.connect_unix(address.path)
    if address.scheme == "tcp":
        return lambda: connector.connect(host, port)
    verify = not parse_bool(flags, "syslog-tls-skip-verify", default=False)
    context = make_tls_context(flags.get("syslog-tls-ca-cert", ""), verify=verify)
    if "syslog-tls-cert" in flags:
        context.load_cert_chain(flags["syslog-tls-cert"], flags.get("syslog-tls-key"))
    return lambda: connector.secure(connector.connect(host, port), host, context)


def _parse_address(text: str) -> Address:
    if "://" not in text:
        raise ValueError(f"syslog-address should be in form proto://address, got {text}")
    return parse_address(text, SCHEMES, "", PORT)


def _parse_facility(text: str) -> int:
    if text in FACILITIES:
        return FACILITIES.index(text)
    if text.isdecimal() and int(text) < len(FACILITIES):
        return int(text)
    raise ValueError("invalid syslog facility")
