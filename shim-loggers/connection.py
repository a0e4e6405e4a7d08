"""Connections of a logger: TCP with or without TLS, and unix sockets, each with its deadline.

`socket` and `ssl` are loaded only by those who need TLS: they cost 3 MB and 15 ms.
"""

from _socket import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, getaddrinfo, socket

from nameservers import Nameservers
from spool import Deadline

CONNECT_S = 5.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

    Socket = socket | ssl.SSLSocket


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
        servers = flags.get("dns-servers", "").split(",")
        search = flags.get("dns-search", "").split(",")
        self._nameservers = (
            Nameservers(servers, [name for name in search if name], deadline)
            if servers[0]
            else None
        )

    def connect(self, host: str, port: int) -> socket:
        """Connect to the first address of a host that answers.

        Raises:
            OSError: none does.
        """
        fault = OSError(f"lookup {host}: no such host")
        for address in self._resolve(host, port):
            sock = socket(AF_INET6 if ":" in address else AF_INET, SOCK_STREAM)
            try:
                sock.settimeout(self._deadline.left_s(CONNECT_S) or 0.001)
                sock.connect((address, port))
            except OSError as error:
                sock.close()
                fault = OSError(f"dial tcp {address}:{port}: {error.strerror or error}")
            else:
                return sock
        raise fault

    def connect_unix(self, path: str, kind: int = SOCK_STREAM) -> socket:
        """Connect to a unix socket.

        Raises:
            OSError: nobody listens there.
        """
        sock = socket(AF_UNIX, kind)
        try:
            sock.settimeout(self._deadline.left_s(CONNECT_S) or 0.001)
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise OSError(f"dial unix {path}: {error.strerror or error}") from error
        return sock

    def secure(self, sock: socket, host: str, context: "ssl.SSLContext") -> "ssl.SSLSocket":
        """Speak TLS from now on.

        Raises:
            OSError: the other side can't, or isn't who it should be.
        """
        from socket import socket as full_socket

        return context.wrap_socket(full_socket(fileno=sock.detach()), server_hostname=host)

    def _resolve(self, host: str, port: int) -> list[str]:
        if self._nameservers is not None:
            return self._nameservers.resolve(host)
        found = getaddrinfo(host, port, 0, SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]


def make_tls_context(ca_path: str = "", *, verify: bool = True) -> "ssl.SSLContext":
    """Trust a CA's certificate, or those that the system trusts, or everybody.

    Raises:
        OSError: the file can't be read, or holds none.
    """
    import ssl

    context = ssl.create_default_context(cafile=ca_path or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
