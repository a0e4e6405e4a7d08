"""Sends lines in the Graylog Extended Log Format 1.1.

Source: moby, daemon/logger/gelf; go-gelf, which it uses; Graylog documentation, "GELF".
"""

import posix

from local.json_text import quote
from local.local_copy import escape
from network.connection import Connector, parse_address
from sending.destination import SEVERITIES
from sending.tags import load_env, read_attributes, read_name, render_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from reading.lines import Lines
    from sending.destination import Destination, Setup

UDP_FLAGS = ("gelf-compression-type", "gelf-compression-level")
TCP_FLAGS = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")


class Format:
    """Renders messages."""

    def __init__(self) -> None:
        self._fields = b""
        self._begin = b""

    def prepare(self, setup: "Setup", connector: Connector) -> None:
        """Find out, once, what every message holds; what is empty is left out.

        Raises:
            OSError, ValueError: as `tags.read_attributes`.
        """
        if self._begin:
            return
        fields = _read_fields(setup, connector)
        self._fields = b"".join([b",%b:%b" % (quote(k), quote(v)) for k, v in fields.items() if v])
        host = quote(posix.uname().nodename)
        self._begin = b'{"version":"1.1","host":%b,"short_message":"' % host

    def join(self, lines: "Lines") -> bytes:
        """Make messages that end with a NUL."""
        end = self._render_end(lines) + b"\0"
        return self._begin + escape(lines.text).replace(b"\n", end + self._begin) + end

    def split(self, lines: "Lines") -> list[bytes]:
        """Make one message of each line."""
        end = self._render_end(lines)
        return [self._begin + text + end for text in escape(lines.text).split(b"\n")]

    def _render_end(self, lines: "Lines") -> bytes:
        seconds, milliseconds = divmod(lines.time_ns // 10**6, 1000)
        level = SEVERITIES[lines.stream]
        return b'","timestamp":%d.%03d,"level":%d%b}' % (seconds, milliseconds, level, self._fields)


def make(setup: "Setup") -> "Destination":
    """Read the flags.

    Raises:
        ValueError: one of them can't be.
        OSError: the container's environment can't be read.
    """
    flags = setup.flags
    load_env(flags)
    if "gelf-address" not in flags:
        raise ValueError("gelf-address is a required parameter")
    text = flags["gelf-address"]
    if "://" not in text:
        raise ValueError(f"gelf-address should be in form proto://address, got {text}")
    if not text.startswith(("tcp://", "udp://")):
        raise ValueError("gelf: endpoint needs to be TCP or UDP")
    address = parse_address(text, ("tcp", "udp"), "", 0)
    render_tag(flags)
    place = (address.host, address.port)
    if address.scheme == "udp":
        return _make_datagrams(setup, place)
    _check_tcp_flags(flags)
    return _make_stream(setup, place)


def _make_datagrams(setup: "Setup", place: tuple[str, int]) -> "Destination":
    from destinations.gelf_datagrams import GelfDatagrams
    from sending.datagrams import DatagramConnector

    for name in TCP_FLAGS:
        if name in setup.flags:
            raise ValueError(f'"{name}" is only valid for TCP')
    form = Format()
    connector = DatagramConnector(setup.flags, setup.deadline)

    def connect() -> "socket":
        form.prepare(setup, connector)
        return connector.connect_udp(*place)

    return GelfDatagrams(setup, connect, form.split)


def _make_stream(setup: "Setup", place: tuple[str, int]) -> "Destination":
    from sending.stream import Stream, StreamDestination

    form = Format()
    connector = Connector(setup.flags, setup.deadline)

    def connect() -> "socket":
        form.prepare(setup, connector)
        return connector.connect(*place)

    return StreamDestination(Stream(connect, setup.deadline), form.join, b"\0")


def _check_tcp_flags(flags: dict[str, str]) -> None:
    """The number and the pauses of attempts are ours: Docker loses the line after the last one."""
    if any(name in flags for name in UDP_FLAGS):
        raise ValueError("compression is only supported on UDP")
    for name in TCP_FLAGS:
        if not flags.get(name, "0").isdecimal():
            raise ValueError(f"{name} must be a positive integer")


def _read_fields(setup: "Setup", connector: Connector) -> dict[str, str]:
    flags = setup.flags
    fields = {
        "_container_id": flags["container-id"],
        "_container_name": read_name(flags),
        "_image_name": flags.get("container-image-name", ""),
        "_tag": render_tag(flags),
    }
    for name, value in read_attributes(setup, connector).items():
        fields["_" + name.removeprefix("_")] = value
    return fields
