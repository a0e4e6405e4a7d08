"""The kinds of values that settings have, and what is said of one that can't work.

A text says what a value must be and never repeats it, since it may hold a secret.
"""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

MAX_SOCKET_BYTES: Final = 107
"""Longest path of a unix socket. Source: unix(7), `sun_path` without its final NUL."""

CLUSTER_NAME: Final = r"[A-Za-z0-9_-]{1,255}"
"""Source: ECS API, CreateCluster, `clusterName`."""

NO_ORIGINAL: Final = "no-original"
"""Among the mirrors of a registry: it isn't asked itself."""

_PATH_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
"""Source: the distribution project's reference grammar."""

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?|[0-9A-Fa-f:.]+(%\w+)?")
"""A name or an address as it stands in a URL, an IPv6 address without its brackets."""


MAX_PORT: Final = 65535

_HOST_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp))?")


def matching(pattern: str, rule: str) -> AfterValidator:
    """Take text that matches the pattern as a whole; `rule` says what it must be."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def check_url(text: str) -> str:
    """Return a URL that HTTP can be spoken to.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(text)
        is_good = (
            parts.scheme in {"http", "https"}
            and _HOST.fullmatch(parts.hostname or "") is not None
            and parts.port != 0
            and re.search(r"[\s?#@]", text) is None
        )
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("must be http://HOST[:PORT] or https://HOST[:PORT]")
    return text


def check_proxy(text: str) -> str:
    """Return the URL of an HTTP proxy, or an empty text for none.

    Raises:
        ValueError: it is neither. The text has no part of the URL, which may hold a password.
    """
    try:
        parts = urlsplit(text)
        is_good = not text or (
            parts.scheme == "http"
            and _HOST.fullmatch(parts.hostname or "") is not None
            and bool(parts.port)
            and parts.path in {"", "/"}
            and re.search(r"[\s?#]", text) is None
        )
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError(
            "must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with other characters than"
            " letters and digits of USER and PASSWORD percent-encoded"
        )
    return text


def check_without_proxy(text: str) -> str:
    """Return what stands for hosts that are asked without a proxy.

    Raises:
        ValueError: it is no host, no suffix of hosts and no range of addresses.
    """
    rule = "must be *, HOST, HOST:PORT, .SUFFIX or a range of addresses such as 10.0.0.0/8"
    try:
        if "/" in text:
            ip_network(text, strict=False)
        elif text != "*" and not _is_address(text):
            check_registry(text.removeprefix(".").removeprefix("*."))
    except ValueError:
        raise ValueError(rule) from None
    return text


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_listen(text: str) -> str:
    """Return a URL that something can listen at.

    Raises:
        ValueError: it has no port, or more than a host and a port.
    """
    try:
        parts = urlsplit(check_url(text))
        is_good = parts.scheme == "http" and parts.path in {"", "/"} and parts.port is not None
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("must be http://HOST:PORT")
    return text


def check_absolute(path: Path) -> Path:
    """Return a path that means the same wherever the program was started.

    Raises:
        ValueError: it depends on the working directory.
    """
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("must be an absolute path, without ..")
    return path


def check_host_port(text: str) -> str:
    """Return `PORT`, `FIRST-LAST`, or either with `/tcp` or `/udp` behind it.

    Raises:
        ValueError: it is none of them.
    """
    found = _HOST_PORT.fullmatch(text)
    if found is not None:
        first, last = int(found[1]), int(found[2] or found[1])
        if 0 < first <= last <= MAX_PORT:
            return text
    raise ValueError("must be ports such as 5432, 53/udp or 8000-8100/tcp")


def check_registry(host: str) -> str:
    """Return a registry as image names begin with it.

    Raises:
        ValueError: it is more, or less, than a host and its port.
    """
    try:
        parts = urlsplit(f"//{host}")
        is_good = host == parts.netloc and _HOST.fullmatch(parts.hostname or "") is not None
        is_good = is_good and parts.port != 0 and "@" not in host
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("must be HOST or HOST:PORT, without http:// and without a path")
    return host


def check_prefix(text: str) -> str:
    """Return the beginning of names of images.

    Raises:
        ValueError: it isn't a host with or without the beginning of a path.
    """
    host, *path = text.split("/")
    is_host = any(char in host for char in ".:") or host == "localhost"
    try:
        if not is_host or not all(re.fullmatch(_PATH_PART, part) for part in path):
            raise ValueError
        check_registry(host)
    except ValueError:
        raise ValueError("must be HOST[:PORT][/PATH], as names of images begin") from None
    return text


def _check_mirror(text: str) -> str:
    return text if text == NO_ORIGINAL else check_prefix(text)


def _check_mirrors(value: tuple[str, ...]) -> tuple[str, ...]:
    if not set(value) - {NO_ORIGINAL}:
        raise ValueError("must have at least one prefix")
    return value


def _check_socket(path: Path) -> Path:
    if len(str(path).encode()) > MAX_SOCKET_BYTES:
        raise ValueError(f"must have at most {MAX_SOCKET_BYTES} bytes, as paths of sockets do")
    return check_absolute(path)


def _check_urls(text: str) -> str:
    for url in text.split(","):
        check_url(url.strip())
    return text


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


split_commas: Final = BeforeValidator(_split)
"""Beside `NoDecode` for a list that the environment has with commas in between."""

one_or_several: Final = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
"""For a list that may be written as its only value."""


LONGEST_WAIT_S: Final = 7 * 24 * 3600
MAX_HOST_VOLUME_CHARS: Final = 96
"""Source: ECS API, Attribute.name: 128 characters, with what stands before the path."""
LONGEST_RETENTION_S: Final = 100 * 365 * 24 * 3600


def check_host_volume(path: Path) -> Path:
    """Return a path that attributes of a container instance can name.

    Raises:
        ValueError: it is too long, or leads up.
    """
    if ".." in path.parts or len(str(path)) > MAX_HOST_VOLUME_CHARS:
        raise ValueError(
            f"must be a path without '..' and of at most {MAX_HOST_VOLUME_CHARS} characters"
        )
    return path


AbsolutePath = Annotated[Path, AfterValidator(check_absolute)]
SocketPath = Annotated[Path, AfterValidator(_check_socket)]
Url = Annotated[str, AfterValidator(check_url)]
ProxyUrl = Annotated[str, AfterValidator(check_proxy)]
"""Of an HTTP proxy; empty for none. May hold a password."""
WithoutProxy = Annotated[str, AfterValidator(check_without_proxy)]
"""Hosts that are asked without a proxy."""
ListenUrl = Annotated[str, AfterValidator(check_listen)]
"""Where something listens."""
Urls = Annotated[str, AfterValidator(_check_urls)]
"""One or several, separated by commas."""
Registry = Annotated[str, AfterValidator(check_registry)]
Mirrors = Annotated[
    tuple[Annotated[str, AfterValidator(_check_mirror)], ...],
    AfterValidator(_check_mirrors),
    one_or_several,
]
Prefix = Annotated[str, AfterValidator(check_prefix)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_WAIT_S)]
"""How long something is waited for."""
Retention = Annotated[int, Field(ge=0, le=LONGEST_RETENTION_S)]
"""For how many seconds something is kept."""
Region = Annotated[
    str, matching(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}", "must be a region such as us-east-1")
]
ClusterName = Annotated[
    str, matching(CLUSTER_NAME, "must have 1 to 255 letters, digits, hyphens, underscores")
]
