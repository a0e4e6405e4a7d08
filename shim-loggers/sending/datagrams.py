"""Lines as datagrams: one message each, over UDP or a unix socket."""

from _socket import AF_INET, AF_INET6, SOCK_DGRAM, socket

from network.connection import Connector
from sending.destination import Destination, TryAgain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from reading.lines import Lines
    from sending.destination import Setup

SEND_S = 5.0
"""How long a unix socket may be full before that is told."""
FLUSH_LINES = 1000
TOO_LONG = 90
"""EMSGSIZE; see errno(3)."""


class DatagramConnector(Connector):
    """Opens sockets for datagrams, too."""

    def connect_udp(self, host: str, port: int) -> socket:
        """Return a socket that sends to the first address of a host; whether it is there is open.

        Raises:
            OSError: the host has no address, or none that a route leads to.
        """
        fault = OSError(f"lookup {host}: no such host")
        for address in self._resolve(host, port, self._begin()):
            sock = socket(AF_INET6 if ":" in address else AF_INET, SOCK_DGRAM)
            try:
                sock.connect((address, port))
            except OSError as error:
                sock.close()
                fault = OSError(f"dial udp {address}:{port}: {error.strerror or error}")
            else:
                return sock
        raise fault


class DatagramDestination(Destination):
    """Makes lines into messages, and sends one after the other.

    Nothing is lost on a unix socket. UDP loses what it likes, and an absent server shows only now
    and then: such a message is sent once more, and the container isn't stopped.
    """

    def __init__(
        self,
        setup: "Setup",
        connect: "Callable[[], socket]",
        encode: "Callable[[Lines], list[bytes]]",
        *,
        lossy: bool = False,
    ) -> None:
        self._setup = setup
        self._connect = connect
        self._encode = encode
        self._lossy = lossy
        self._sock: socket | None = None
        self._waiting: list[Lines] = []
        self._count = 0
        self._sent = 0
        """Messages of the first lines that are gone."""

    def open(self) -> None:
        self._sock = self._connect()

    def add(self, lines: "Lines") -> bool:
        self._waiting.append(lines)
        self._count += lines.count()
        return self._count >= FLUSH_LINES

    def flush(self) -> None:
        try:
            self._sock = self._sock or self._connect()
            while self._waiting:
                self._send_all(self._sock, self._encode(self._waiting[0]))
                self._waiting.pop(0)
                self._sent = 0
        except OSError as error:
            self.close()
            raise TryAgain(str(error)) from error
        self._count = 0

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def send(self, sock: socket, message: bytes) -> None:
        """Send one message.

        Raises:
            OSError: it can't be sent.
        """
        sock.send(message)

    def _send_all(self, sock: socket, messages: list[bytes]) -> None:
        for message in messages[self._sent :]:
            sock.settimeout(self._setup.deadline.left_s(SEND_S) or 0.001)
            try:
                self.send(sock, message)
            except ConnectionRefusedError as error:
                if not self._lossy:
                    raise
                self._setup.reports.trouble(f"{error}: lines are lost")
                self.send(sock, message)
            except OSError as error:
                if error.errno != TOO_LONG:
                    raise
                self.refused += 1
                self._setup.reports.loss(f"a message of {len(message)} bytes is too long")
            self._sent += 1
