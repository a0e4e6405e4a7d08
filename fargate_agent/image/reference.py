"""Names of images: `nginx`, `host:5000/team/web:2`, `web@sha256:…`, and what each stands for.

A *digest* names a blob, a manifest or an index by its bytes.

Source: the distribution project's reference grammar, and Docker's rule for short names: what has no
registry is on `docker.io`, and what has one part there is an official image, `library/…`; for
digests OCI image specification, descriptor.md.
"""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from yarl import URL

DOCKER_HUB: Final = "docker.io"
DOCKER_HUB_API: Final = "registry-1.docker.io"
"""The host that serves what is named `docker.io`. Source: Docker Hub's registry API."""

_HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io", DOCKER_HUB_API})
_DEFAULT_PORTS: Final = frozenset({443, 80})
"""With TLS and without; which of them it is decides a setting."""

MAX_NAME_CHARS: Final = 255
"""Longest registry and repository. Source: distribution, reference grammar."""

_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class InvalidReferenceError(ValueError):
    """A text names no image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A name of an image with nothing left out."""

    registry: str
    """Host, with the port if one was given."""
    repository: str
    tag: str | None
    digest: str | None
    """At least one of tag and digest is there; the digest wins."""

    @property
    def name(self) -> str:
        """The name in containerd's image store."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def api_host(self) -> str:
        """The host that answers for the registry."""
        return DOCKER_HUB_API if self.registry == DOCKER_HUB else self.registry

    @property
    def selector(self) -> str:
        """What the registry is asked for: the digest, or else the tag."""
        return self.digest or self.tag or "latest"


def parse_reference(text: str) -> Reference:
    """Read a name as people write it.

    Raises:
        InvalidReferenceError: it names no image.
    """
    rest, _, digest = text.partition("@")
    rest, tag = _split_tag(rest)
    registry, repository = _split_registry(rest)
    if not _REPOSITORY.fullmatch(repository) or not _REGISTRY.fullmatch(registry):
        raise InvalidReferenceError("invalid reference format")
    if not _is_host(registry):
        raise InvalidReferenceError("invalid reference format")
    if len(registry) + len(repository) > MAX_NAME_CHARS:
        raise InvalidReferenceError(f"repository name is longer than {MAX_NAME_CHARS} characters")
    if (tag is not None and not _TAG.fullmatch(tag)) or ("@" in text and not is_digest(digest)):
        raise InvalidReferenceError("invalid reference format")
    if tag is None and not digest:
        tag = "latest"
    return Reference(registry=registry, repository=repository, tag=tag, digest=digest or None)


def registry_key(host: str) -> str:
    """Name a registry in one way, whichever of its names an image has, without a default port.

    Example:
        >>> registry_key("Registry.example.com:443"), registry_key("registry-1.docker.io")
        ('registry.example.com', 'docker.io')
    """
    name, colon, port = host.lower().rpartition(":")
    if not colon or not port.isdecimal() or name.count("[") != name.count("]"):
        name, port = host.lower(), ""
    if port and int(port) not in _DEFAULT_PORTS:
        name = f"{name}:{int(port)}"
    if name.startswith("["):
        with suppress(ValueError):
            address, _, rest = name[1:].partition("]")
            name = f"[{ip_address(address)}]{rest}"
    return DOCKER_HUB if name in _HUB_NAMES else name


def _is_host(registry: str) -> bool:
    try:
        host = URL(f"https://{registry}").host or ""
        return not registry.startswith("[") or ip_address(host).version == 6
    except ValueError:
        return False


def _split_tag(text: str) -> tuple[str, str | None]:
    last = text.rpartition("/")[2]
    if ":" not in last:
        return text, None
    head, _, tag = text.rpartition(":")
    return head, tag


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if slash and (first == "localhost" or any(char in first for char in ".:[")):
        registry = DOCKER_HUB if first == "index.docker.io" else first
    else:
        registry, rest = DOCKER_HUB, text
    if registry == DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    return registry, rest


def is_digest(text: str) -> bool:
    """Whether it is a digest of the one kind that is accepted here, SHA-256."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> str:
    """Name a blob by its content."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
