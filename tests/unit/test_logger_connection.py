"""Addresses of destinations."""

import pytest

from network.connection import parse_address

SCHEMES = ("tcp", "tls", "unix")


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "shown"),
    [
        ("h.test", "tcp", "h.test", 24224, "tcp://h.test:24224"),
        ("h.test:1", "tcp", "h.test", 1, "tcp://h.test:1"),
        ("tls://h.test", "tls", "h.test", 24224, "tls://h.test:24224"),
        ("tcp://:5", "tcp", "127.0.0.1", 5, "tcp://127.0.0.1:5"),
        ("", "tcp", "127.0.0.1", 24224, "tcp://127.0.0.1:24224"),
        ("[::1]:7", "tcp", "::1", 7, "tcp://[::1]:7"),
        ("[::1]", "tcp", "::1", 24224, "tcp://[::1]:24224"),
    ],
)
def test_address_is_read_with_its_defaults(
    text: str, scheme: str, host: str, port: int, shown: str
) -> None:
    address = parse_address(text, SCHEMES, "tcp", 24224)

    assert (address.scheme, address.host, address.port, str(address)) == (
        scheme,
        host,
        port,
        shown,
    )


def test_address_of_a_unix_socket_is_a_path() -> None:
    address = parse_address("unix:///run/a b.sock", SCHEMES, "tcp", 24224)

    assert (address.path, str(address)) == ("/run/a b.sock", "unix:///run/a b.sock")


@pytest.mark.parametrize(
    "text",
    [
        "udp://h",
        "h:0",
        "h:65536",
        "h:x",
        "h/path",
        "tcp://u@h",
        "h?q",
        "h#f",
        "unix://a",
        "unix://",
    ],
)
def test_address_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(text, SCHEMES, "tcp", 24224)
