"""Credentials of registries, from a Docker `config.json`.

Programs that keep credentials (`credHelpers`, `credsStore`) are not run: the agent starts none.
Source: Docker CLI, "docker login", `config.json`.
"""

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fargate_agent.image.document import Document, InvalidDocumentError, parse_document
from fargate_agent.image.reference import DOCKER_HUB

_HUB_KEYS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
"""Names under which credentials of Docker Hub are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a registry is shown."""

    username: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        """The HTTP header `Authorization`. Source: RFC 7617."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class AuthFile:
    """What the operator gave for each registry."""

    def __init__(self, auths: Document) -> None:
        self._auths = auths

    def find(self, registry: str) -> Credentials | None:
        """Return what there is for a registry, named as in an image; None if there is nothing.

        Raises:
            InvalidDocumentError: its entry isn't as it should be.
        """
        for key in self._auths.keys:
            host = _host(key)
            if host == registry or (registry == DOCKER_HUB and host in _HUB_KEYS):
                return _parse_entry(self._auths.child(key))
        return None


def read_auth_file(file: Path | None) -> AuthFile:
    """Read the file; one that isn't there has nothing. Blocks.

    Raises:
        InvalidDocumentError: the file can't be read or isn't as it should be.
    """
    document = None if file is None else _read(file)
    return AuthFile(Document("auths", {}) if document is None else document.child("auths"))


def check_credentials(file: Path) -> None:
    """Return if every entry of the file can be used. Blocks.

    Raises:
        InvalidDocumentError: the file isn't there, or an entry isn't as it should be.
    """
    if (document := _read(file)) is None:
        raise InvalidDocumentError("there is no such file")
    for key in ("credsStore", "credHelpers"):
        if key in document:
            raise InvalidDocumentError(
                f"'{key}' names a program that keeps credentials, and the agent starts none: log in"
                " without it, so that they stand in 'auths'"
            )
    auths = document.child("auths")
    for key in auths.keys:
        _parse_entry(auths.child(key))


def _read(file: Path) -> Document | None:
    what = "the agent's file of registry credentials"
    try:
        return parse_document(what, file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidDocumentError(f"{what} can't be read: {error.strerror}") from error


def _host(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _parse_entry(entry: Document) -> Credentials | None:
    username, password = entry.text("username", ""), entry.text("password", "")
    if "auth" in entry:
        try:
            pair = base64.b64decode(entry.text("auth"), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            # Without the cause: it would show a part of the secret.
            raise InvalidDocumentError(f"{entry.what}: 'auth' is not base64") from None
        username, _, password = pair.partition(":")
    return Credentials(username=username, password=password) if username else None
