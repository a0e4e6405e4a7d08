"""Where the ECS API of a stack listens."""

import socket
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from fargate_agent.cli.connection import DEFAULT_ENDPOINT
from fargate_agent.cli.failure import CliError

RELEASE_TIMEOUT_S: Final = 3
"""How long a control plane that was killed with its `fargate up` may still hold its port."""
_POLL_S: Final = 0.05
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


def choose_listen(wanted: str | None, remembered: str | None, take: Callable[[str], bool]) -> str:
    """Choose the URL to listen at.

    The first that is free of: the one that was asked for, and no other; the default, the remembered
    one, any other port. `take` claims a name unless another stack has it.

    Raises:
        CliError: what was asked for is no URL, or is in use.
    """
    if wanted is not None:
        host, port = parse_listen(wanted)
        if port and not (take(f"port/{port}") and _is_free(host, port, wait=wanted == remembered)):
            raise CliError(f"--listen {wanted}: the port is in use, or the host is not this one")
        return wanted if port else _any_port(host, take)
    for url in (DEFAULT_ENDPOINT, remembered):
        if url is not None:
            host, port = parse_listen(url)
            if take(f"port/{port}") and _is_free(host, port, wait=url == remembered):
                return url
    return _any_port("127.0.0.1", take)


def client_url(listen: str) -> str:
    """Where clients on this machine find what listens there."""
    host, port = parse_listen(listen)
    return _render_url(_ANY.get(host, host), port)


def parse_listen(url: str) -> tuple[str, int]:
    """Host and port of `http://HOST:PORT`.

    Raises:
        CliError: it is something else.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise CliError(f"--listen {url}: {error}") from error
    if parts.scheme != "http" or not host or port is None or parts.path not in ("", "/"):
        raise CliError(f"--listen {url}: not http://HOST:PORT")
    return host, port


def _any_port(host: str, take: Callable[[str], bool]) -> str:
    while True:
        with _bind(host, 0) as listener:
            port: int = listener.getsockname()[1]
        if take(f"port/{port}"):
            return _render_url(host, port)


def _is_free(host: str, port: int, *, wait: bool) -> bool:
    deadline = time.monotonic() + (RELEASE_TIMEOUT_S if wait else 0)
    while True:
        try:
            _bind(host, port).close()
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _render_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
