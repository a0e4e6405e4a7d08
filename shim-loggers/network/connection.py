"""Connections of a logger: TCP with or without TLS, and unix sockets, each with its deadline.

What TLS needs is loaded only for those who speak it: 1.5 MB and 6 ms.
"""

import posix
from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    getaddrinfo,
    inet_pton,
    socket,
)

from reading.deadline import Deadline

CONNECT_S = 10.0
"""For the name to be found, and one of its addresses to answer."""
HANDSHAKE_S = 5.0
"""For TLS to be agreed upon."""
KEEP_ALIVE_S = 15
"""How often a quiet connection is tried: one that a firewall has forgotten would swallow what is
sent next. Source: Go, net, Dialer.KeepAlive."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from network.nameservers import Nameservers
    from network.tls import Context, TlsSocket

    Socket = socket


class Address:
    """Where to connect to, e.g. `tcp://host:port`, `tls://host:port`, `unix:///path`."""

    def __init__(self, scheme: str, host: str, port: int, path: str = "") -> None:
        self.scheme = scheme
        self.host = host
        """Empty with `unix`."""
        self.port = port
        self.path = path

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"{self.scheme}://{self.path}" if self.path else f"{self.scheme}://{host}:{self.port}"
        )


def parse_address(
    text: str, schemes: tuple[str, ...], default_scheme: str, default_port: int
) -> Address:
    """Read an address whose scheme and port may be missing.

    Raises:
        ValueError: it is none, or its scheme is not one of `schemes`.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = default_scheme, text
    if scheme not in schemes:
        raise ValueError(f"unsupported scheme '{scheme}' in address '{text}'")
    if scheme.startswith("unix"):
        if not rest.startswith("/"):
            raise ValueError(f"path of a socket expected in address '{text}'")
        return Address(scheme, "", 0, rest)
    host, _, port = rest.rpartition(":") if rest.rfind(":") > rest.rfind("]") else (rest, "", "")
    host = host.removeprefix("[").removesuffix("]")
    if any(mark in rest for mark in "/?#@") or (port and not port.isdecimal()):
        raise ValueError(f"invalid address '{text}'")
    number = int(port or default_port)
    if not 0 < number < 65536:
        raise ValueError(f"invalid port in address '{text}'")
    return Address(scheme, host or "127.0.0.1", number)


class Connector:
    """Opens connections inside the deadline."""

    def __init__(self, flags: dict[str, str], deadline: Deadline) -> None:
        self._deadline = deadline
        self._servers = flags.get("dns-servers", "")
        self._search = flags.get("dns-search", "")
        self._nameservers: Nameservers | None = None

    def connect(self, host: str, port: int) -> socket:
        """Connect to the first address of a host that answers.

        Raises:
            OSError: none does, or no name server. Source of the texts: Go, net.
        """
        attempt = self._begin()
        addresses = self._resolve(host, port, attempt)
        fault = OSError(f"lookup {host}: no such host")
        for tried, address in enumerate(addresses):
            sock = socket(AF_INET6 if ":" in address else AF_INET, SOCK_STREAM)
            try:
                sock.settimeout(attempt.left_s(CONNECT_S) / (len(addresses) - tried) or 0.001)
                sock.connect((address, port))
            except OSError as error:
                sock.close()
                place = Address("tcp", address, port)
                fault = OSError(f"dial {str(place).replace('://', ' ')}: {_explain(error)}")
            else:
                _tune(sock)
                return sock
        raise fault

    def connect_unix(
        self, path: str, kind: int = SOCK_STREAM, *, follow: bool = True, directory: int = -1
    ) -> socket:
        """Connect to a unix socket; a link to one is not followed unless `follow`.

        `directory` is its own, open, for who may not pass those that lead to it any more.

        Raises:
            OSError: nobody listens there.
        """
        sock = socket(AF_UNIX, kind)
        try:
            sock.settimeout(self._deadline.left_s(CONNECT_S) or 0.001)
            modes = posix.O_PATH | (0 if follow else posix.O_NOFOLLOW)
            try:
                _connect_unix(sock, path, modes)
            except PermissionError:
                if directory < 0:
                    raise
                _connect_unix(sock, path.rpartition("/")[2], modes, directory)
        except OSError as error:
            sock.close()
            raise OSError(f"dial unix {path}: {_explain(error)}") from error
        return sock

    def secure(self, sock: socket, host: str, context: "Context") -> "TlsSocket":
        """Speak TLS from now on.

        Raises:
            OSError: the other side can't, or isn't who it should be.
        """
        from network.tls import TlsSocket

        name = host if host.isascii() else host.encode("idna").decode()
        return TlsSocket(sock, name, context, self._deadline.left_s(HANDSHAKE_S) or 0.001)

    def _begin(self) -> Deadline:
        attempt = Deadline()
        attempt.begin(self._deadline.left_s(CONNECT_S))
        return attempt

    def _resolve(self, host: str, port: int, attempt: Deadline) -> list[str]:
        if is_address(host):
            return [host]
        if self._nameservers is None and self._servers:
            from network.nameservers import Nameservers

            search = [name for name in self._search.split(",") if name]
            self._nameservers = Nameservers(self._servers.split(","), search)
        if self._nameservers is not None:
            return self._nameservers.resolve(host, attempt)
        found = getaddrinfo(_encode(host), port, 0, SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]


def is_address(host: str) -> bool:
    """Whether a host is given by its address."""
    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _encode(host: str) -> str | bytes:
    """Spare the codec for names, which a `str` loads, and its 1.4 MB."""
    return host.encode() if host.isascii() else host


def _tune(sock: socket) -> None:
    """Keep the connection alive, and let nothing wait for more: what is sent is a batch."""
    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    for option in (TCP_KEEPIDLE, TCP_KEEPINTVL):
        sock.setsockopt(IPPROTO_TCP, option, KEEP_ALIVE_S)


def _connect_unix(sock: socket, path: str, modes: int, directory: int | None = None) -> None:
    """Connect by a name that is short: the kernel takes none of more than 107 bytes."""
    fd = posix.open(path, modes | posix.O_CLOEXEC, dir_fd=directory)
    try:
        sock.connect(f"/proc/self/fd/{fd}")
    finally:
        posix.close(fd)


def _explain(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    return f"connect: {error.strerror.lower()}" if error.strerror else str(error)


def make_tls_context(ca_path: str = "", *, verify: bool = True) -> "Context":
    """Trust a CA's certificate, or those that the system trusts, or everybody.

    Raises:
        OSError: the file can't be read, or holds none.
    """
    from network.tls import make_context

    return make_context(ca_path, verify=verify)
