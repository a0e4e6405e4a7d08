"""GELF over UDP: compressed, and in chunks when a message is long.

Source: go-gelf, gelf/udpwriter.go; moby, daemon/logger/gelf (the texts).
"""

import posix
import zlib

from sending.datagrams import TOO_LONG, DatagramDestination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from reading.lines import Lines
    from sending.destination import Setup

COMPRESSIONS = {"gzip": 31, "zlib": 15, "none": 0}
"""What zlib calls window bits. Source: zlib's manual, deflateInit2."""
FAST, SMALL = 1, 6
"""Level, and memory: a message is short. go-gelf takes the same level; less memory is faster."""
MAX_DATAGRAM_BYTES = 1420
CHUNK_MAGIC = b"\x1e\x0f"
CHUNK_BYTES = MAX_DATAGRAM_BYTES - 12
MAX_CHUNKS = 128
"""Source: go-gelf, gelf/udpwriter.go."""


class GelfDatagrams(DatagramDestination):
    """Sends messages."""

    def __init__(
        self,
        setup: "Setup",
        connect: "Callable[[], socket]",
        encode: "Callable[[Lines], list[bytes]]",
    ) -> None:
        """Read the flags.

        Raises:
            ValueError: there is no such compression.
        """
        self._window, self._level = _parse_compression(setup.flags)
        super().__init__(setup, connect, encode, lossy=True)

    def send(self, sock: "socket", message: bytes) -> None:
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
