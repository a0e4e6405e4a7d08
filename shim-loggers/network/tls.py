"""TLS with the C half of the standard library's `ssl`, and without its Python half.

That half loads `socket`, `enum`, `re` and more: 2 MB and 20 ms of every logger.
Source: CPython, Lib/ssl.py, Modules/_ssl.c.
"""

import _ssl
import posix
from _socket import socket

Context = _ssl._SSLContext
SET_BY_HAND = (b"SSL_CERT_FILE", b"SSL_CERT_DIR")
"""Variables that say whom to trust. Source: SSL_CTX_load_verify_locations(3)."""
BEGIN = b"-----BEGIN CERTIFICATE-----"
HASH_CHARS = 8


class TlsSocket(socket):
    """A connection over which TLS is spoken; what it was made of is none any more."""

    def __init__(self, plain: socket, host: str, context: Context, timeout_s: float) -> None:
        """Agree with the other side; `host` is ASCII.

        Raises:
            OSError: it can't, or isn't who it should be, or not within the time.
        """
        super().__init__(fileno=plain.detach())
        try:
            self.settimeout(timeout_s)
            wrap = context._wrap_socket  # type: ignore[attr-defined]  # typeshed lacks it
            self._tls = wrap(self, False, host)  # noqa: FBT003 - it takes no names
            self._tls.do_handshake()
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        return int(self._tls.write(data))

    def recv(self, max_bytes: int) -> bytes:  # type: ignore[override]
        try:
            data: bytes = self._tls.read(max_bytes)
        except _ssl.SSLError as error:
            if error.errno != _ssl.SSL_ERROR_EOF:
                raise
            return b""  # many hang up without a word
        return data


def make_context(ca_path: str, *, verify: bool) -> Context:
    """Trust a CA's certificate, or those that the system trusts, or everybody.

    Raises:
        OSError: the file can't be read, or holds none.
    """
    context = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = _ssl.CERT_NONE
    elif ca_path:
        context.load_verify_locations(ca_path)
    else:
        _, bundle, _, directory = _ssl.get_default_verify_paths()
        told = any(name in posix.environ for name in SET_BY_HAND)
        if not told and has_all(directory, bundle):
            context.load_verify_locations(None, directory)
        else:
            context.set_default_verify_paths()
    return context


def has_all(directory: str, bundle: str) -> bool:
    """Whether each certificate of a file is in a directory too, by the hash of its owner's name.

    From there the one that is needed is loaded alone; all of a system's take 0.9 MB and 12 ms.
    Source: openssl-rehash(1).
    """
    try:
        names = posix.listdir(directory)
        count = _count_certificates(bundle)
    except OSError:
        return False
    hashes = [name for name in names if name[HASH_CHARS : HASH_CHARS + 1] == "."]
    return count == sum(name[HASH_CHARS + 1 :].isdecimal() for name in hashes)


def _count_certificates(bundle: str) -> int:
    fd = posix.open(bundle, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, posix.fstat(fd).st_size).count(BEGIN)
    finally:
        posix.close(fd)
