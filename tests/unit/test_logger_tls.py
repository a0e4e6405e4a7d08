"""TLS as loggers speak it, and whom they trust."""

import _ssl
import posix
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from network.tls import SET_BY_HAND, TlsSocket, has_all, make_context
from tests.fixtures.hec import make_certificate

TIMEOUT_S = 5.0
FIRST = b"-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n"


def hash_certificate(certificate: Path, directory: Path) -> None:
    """Put it where OpenSSL looks for it."""
    command = ["openssl", "x509", "-noout", "-hash", "-in", str(certificate)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (directory / f"{name}.0").symlink_to(certificate)


def answer(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Send back what comes on one connection, in upper case, and hang up without a word."""
    with suppress(OSError):
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as sock:
            sock.sendall(sock.recv(100).upper())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def plain(certificate: tuple[Path, ssl.SSLContext]) -> Iterator[socket.socket]:
    """A connection to a server that has the certificate and expects TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener, certificate[1]))
        thread.start()
        with socket.create_connection(listener.getsockname()) as sock:
            yield sock
    thread.join()


@pytest.fixture
def system(
    certificate: tuple[Path, ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What the system trusts: nobody yet, in a file and a directory."""
    bundle, directory = tmp_path / "bundle", tmp_path / "certs"
    bundle.write_bytes(b"")
    directory.mkdir()
    places = ("SSL_CERT_FILE", str(bundle), "SSL_CERT_DIR", str(directory))
    for name in SET_BY_HAND:
        monkeypatch.delitem(posix.environ, name, raising=False)
    monkeypatch.setattr(_ssl, "get_default_verify_paths", lambda: places)
    return tmp_path


def test_server_that_the_systems_directory_knows_is_trusted(
    certificate: tuple[Path, ssl.SSLContext], plain: socket.socket, system: Path
) -> None:
    (system / "bundle").write_bytes(certificate[0].read_bytes())
    hash_certificate(certificate[0], system / "certs")
    context = make_context("", verify=True)
    loaded_before = context.cert_store_stats()["x509"]

    with closing(TlsSocket(plain, "localhost", context, TIMEOUT_S)) as sock:
        sock.send(b"hello")
        received = [sock.recv(100), sock.recv(100)]

    assert (loaded_before, received) == (0, [b"HELLO", b""])


@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_server_is_trusted_by_its_certificate_and_its_name(
    certificate: tuple[Path, ssl.SSLContext], plain: socket.socket, name: str
) -> None:
    context = make_context(str(certificate[0]), verify=True)

    try:
        TlsSocket(plain, name, context, TIMEOUT_S).close()
        fault = ""
    except OSError as error:
        fault = str(error)

    assert ("Hostname mismatch" in fault) == (name != "localhost")


def test_unknown_server_is_not_trusted(plain: socket.socket, system: Path) -> None:
    context = make_context("", verify=True)

    with pytest.raises(OSError, match="certificate verify failed"):
        TlsSocket(plain, "localhost", context, TIMEOUT_S)

    assert plain.fileno() == -1


def test_server_that_says_nothing_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as plain,
        pytest.raises(TimeoutError),
    ):
        TlsSocket(plain, "localhost", make_context("", verify=False), 0.1)


@pytest.mark.parametrize(
    ("bundled", "names", "all_there"),
    [
        pytest.param(2, ["aaaaaaaa.0", "aaaaaaaa.1", "ca.pem"], True, id="both"),
        pytest.param(2, ["aaaaaaaa.0", "ca.pem"], False, id="one-by-hand-in-the-file"),
        pytest.param(1, ["ca.pem", "bundle.crt"], False, id="none-hashed"),
        pytest.param(1, ["aaaaaaaa.r0"], False, id="revocations"),
        pytest.param(None, ["aaaaaaaa.0"], False, id="no-file"),
        pytest.param(1, None, False, id="no-directory"),
    ],
)
def test_directory_is_compared_with_the_file(
    bundled: int | None, names: list[str] | None, all_there: bool, tmp_path: Path
) -> None:
    bundle, directory = tmp_path / "bundle", tmp_path / "certs"
    if bundled is not None:
        bundle.write_bytes(FIRST * bundled)
    for name in names or []:
        directory.mkdir(exist_ok=True)
        (directory / name).touch()

    found = has_all(str(directory), str(bundle))

    assert found == all_there
