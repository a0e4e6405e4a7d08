"""Sends lines in the Graylog Extended Log Format 1.1.

Source: moby, daemon/logger/gelf; go-gelf, which it uses; Graylog documentation, "GELF".
"""

import posix
import zlib
from _socket import socket

from connection import Connector, parse_address
from datagrams import TOO_LONG, DatagramConnector, DatagramDestination
from json_text import quote
from lines import SEVERITIES
from local_copy import escape
from stream import Stream, StreamDestination
from tags import FLAGS as TAG_FLAGS
from tags import read_attributes, read_name, render_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lines import Lines
    from sender import Destination, Setup

UDP_FLAGS = ("gelf-compression-type", "gelf-compression-level")
TCP_FLAGS = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")
FLAGS = ("gelf-address", *UDP_FLAGS, *TCP_FLAGS, *TAG_FLAGS)
COMPRESSIONS = {"gzip": 31, "zlib": 15, "none": 0}
"""What zlib calls window bits. Source: zlib's manual, deflateInit2."""
FAST, SMALL = 1, 6
"""Level, and memory: a message is short. go-gelf takes the same level; less memory is faster."""
MAX_DATAGRAM_BYTES = 1420
CHUNK_MAGIC = b"\x1e\x0f"
CHUNK_BYTES = MAX_DATAGRAM_BYTES - 12
MAX_CHUNKS = 128
"""Source: go-gelf, gelf/udpwriter.go."""


class Format:
    """Renders messages."""

    def __init__(self) -> None:
        self._fields = b""
        self._begin = b""

    def set_fields(self, fields: dict[str, str]) -> None:
        """Say what every message holds; what is empty is left out."""
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


class GelfStream(StreamDestination):
    """TCP."""

    def __init__(self, setup: "Setup", connector: Connector, place: tuple[str, int]) -> None:
        self._form = Format()
        self._setup = setup
        self._connector = connector
        stream = Stream(lambda: connector.connect(*place), setup.deadline)
        super().__init__(stream, self._form.join, b"\0")

    def open(self) -> None:
        self._form.set_fields(_read_fields(self._setup, self._connector))
        super().open()


class GelfDatagrams(DatagramDestination):
    """UDP, compressed, and in chunks when a message is long."""

    def __init__(
        self, setup: "Setup", connector: DatagramConnector, place: tuple[str, int]
    ) -> None:
        self._form = Format()
        self._connector = connector
        self._window, self._level = _parse_compression(setup.flags)
        connect = lambda: connector.connect_udp(*place)  # noqa: E731 - it has a type
        super().__init__(setup, connect, self._form.split, lossy=True)

    def open(self) -> None:
        self._form.set_fields(_read_fields(self._setup, self._connector))
        super().open()

    def send(self, sock: socket, message: bytes) -> None:
        if self._window:
            deflate = zlib.compressobj(self._level, zlib.DEFLATED, self._window, SMALL)
            message = deflate.compress(message) + deflate.flush()
        if len(message) <= MAX_DATAGRAM_BYTES:
            sock.send(message)
            return
        chunks = [message[at : at + CHUNK_BYTES] for at in range(0, len(message), CHUNK_BYTES)]
        if len(chunks) > MAX_CHUNKS:
            raise OSError(TOO_LONG, "Message too long")
        head = CHUNK_MAGIC + posix.urandom(8)
        for number, chunk in enumerate(chunks):
            sock.send(head + bytes([number, len(chunks)]) + chunk)


def make(setup: "Setup") -> "Destination":
    """Read the flags.

    Raises:
        ValueError: one of them can't be.
    """
    flags = setup.flags
    if "gelf-address" not in flags:
        raise ValueError("gelf-address is a required parameter")
    text = flags["gelf-address"]
    if "://" not in text:
        raise ValueError(f"gelf-address should be in form proto://address, got {text}")
    if not text.startswith(("tcp://", "udp://")):
        raise ValueError("gelf: endpoint needs to be TCP or UDP")
    address = parse_address(text, ("tcp", "udp"), "", 0)
    render_tag(flags)
    connector = DatagramConnector(flags, setup.deadline)
    place = (address.host, address.port)
    if address.scheme == "udp":
        for name in TCP_FLAGS:
            if name in flags:
                raise ValueError(f'"{name}" is only valid for TCP')
        return GelfDatagrams(setup, connector, place)
    _check_tcp_flags(flags)
    return GelfStream(setup, connector, place)


def _check_tcp_flags(flags: dict[str, str]) -> None:
    """The number and the pauses of attempts are ours: Docker loses the line after the last one."""
    if any(name in flags for name in UDP_FLAGS):
        raise ValueError("compression is only supported on UDP")
    for name in TCP_FLAGS:
        if not flags.get(name, "0").isdecimal():
            raise ValueError(f"{name} must be a positive integer")


def _parse_compression(flags: dict[str, str]) -> tuple[int, int]:
    kind = flags.get("gelf-compression-type", "gzip")
    if kind not in COMPRESSIONS:
        raise ValueError(f'gelf: invalid compression type "{kind}"')
    level = flags.get("gelf-compression-level", str(FAST))
    if level not in ("-1", *"0123456789"):
        raise ValueError(
            f'unknown value "{level}" for log opt "gelf-compression-level" for gelf log driver'
        )
    return COMPRESSIONS[kind], int(level)


def _read_fields(setup: "Setup", connector: Connector) -> dict[str, str]:
    flags = setup.flags
    fields = {
        "_container_id": flags["container-id"],
        "_container_name": read_name(flags),
        "_image_id": flags.get("container-image-id", ""),
        "_image_name": flags.get("container-image-name", ""),
        "_tag": render_tag(flags),
    }
    for name, value in read_attributes(setup, connector).items():
        fields["_" + name.removeprefix("_")] = value
    return fields
