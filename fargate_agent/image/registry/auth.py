"""Credentials of registries, from a Docker `config.json`.

Source: Docker CLI, "docker login", `config.json`, and cli/config/configfile/file.go.
"""

import base64
import binascii
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fargate_agent.egress.urls import Origin, origin_of
from fargate_agent.image.document import Document, InvalidDocumentError, parse_document
from fargate_agent.image.reference import DOCKER_HUB, DOCKER_HUB_API
from fargate_agent.image.registry.hosts import Hosts
from fargate_agent.image.registry.programs import (
    IDENTITY_USER,
    ProgramError,
    ask_program,
    find_program,
)

_HUB_KEYS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
"""Names under which credentials of Docker Hub are kept."""


ALL_BY_TLS: Final = Hosts()
"""No registry is spoken to without TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a registry is shown."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    """In place of the password, what a token service is shown to give a token for a repository.
    Source: Docker registry, OAuth2 token authentication."""

    @property
    def header(self) -> str:
        """The HTTP header `Authorization`; empty without a password. Source: RFC 7617."""
        if not self.password:
            return ""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class AuthFile:
    """What the operator gave for each registry, or the program that keeps it."""

    def __init__(self, document: Document, uid: int, hosts: Hosts = ALL_BY_TLS) -> None:
        """Take the file as a whole, who owns it, and how registries are spoken to."""
        self._auths = document.child("auths")
        self._programs = document.child("credHelpers")
        self._program_of_others = document.text("credsStore", "")
        self._uid = uid
        self._hosts = hosts

    async def find(self, registry: str, used: str | None = None) -> Credentials | None:
        """Return what there is for a registry, named as in an image; None if there is nothing.

        A program that is named for the registry, or else for all, is asked first.

        Raises:
            InvalidDocumentError: its entry isn't as it should be.
            ProgramError: the program that keeps it has no answer.
        """
        del used  # what was refused is all there is
        entry = self.find_entry(registry)
        name, asked_for = self._find_program(registry)
        if name:
            kept = await ask_program(name, self._uid, asked_for)
            if kept is not None and kept.username == IDENTITY_USER:
                return Credentials(username="", password="", identity_token=kept.secret)
            if kept is not None:
                return Credentials(username=kept.username, password=kept.secret)
        return entry

    def find_entry(self, registry: str) -> Credentials | None:
        """Return what the file itself has for a registry.

        Raises:
            InvalidDocumentError: its entry isn't as it should be.
        """
        key = self._find_key(self._auths, registry)
        return None if key is None else _parse_entry(self._auths.child(key))

    def names(self) -> Iterator[tuple[str, str]]:
        """Yield each registry that is named, and its user; a program's user isn't known: empty.

        Raises:
            InvalidDocumentError: an entry isn't as it should be.
        """
        for key in self._programs.keys:
            yield name_registry(key), ""
        for key in self._auths.keys:
            if (entry := _parse_entry(self._auths.child(key))) is not None:
                yield name_registry(key), entry.username

    def has(self, registry: str) -> bool:
        """Whether there is an entry for a registry, or a program that may keep one."""
        name, _ = self._find_program(registry)
        return bool(name) or self.find_entry(registry) is not None

    def check(self) -> None:
        """Return if every entry can be used, and every program run; blocks.

        Raises:
            InvalidDocumentError: one can't.
        """
        for key in self._auths.keys:
            _parse_entry(self._auths.child(key))
        names = {key: self._programs.text(key) for key in self._programs.keys}
        if self._program_of_others:
            names["credsStore"] = self._program_of_others
        for key, name in names.items():
            try:
                find_program(name, self._uid)
            except ProgramError as error:
                raise InvalidDocumentError(f"{key}: {error}") from error

    def _find_program(self, registry: str) -> tuple[str, str]:
        """Return a program, empty if there is none, and what the registry is called there."""
        key = self._find_key(self._programs, registry)
        if key is None:
            return self._program_of_others, registry
        return self._programs.text(key), name_registry(key)

    def _find_key(self, entries: Document, registry: str) -> str | None:
        """Return the entry for a registry as it is written, or else for whom it stands.

        That is one host, one port, and whether by TLS, so that nobody else is shown a password.
        """
        names = {key: name_registry(key) for key in entries.keys}
        for key, name in names.items():
            if name == registry:
                return key
        wanted = self._origin(registry)
        for key, name in names.items():
            if wanted is not None and self._origin(name) == wanted:
                return key
        return None

    def _origin(self, registry: str) -> Origin | None:
        """Return who is asked for the images of a registry; None if that can't be a host."""
        try:
            return origin_of(
                self._hosts.base(DOCKER_HUB_API if registry == DOCKER_HUB else registry)
            )
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Auths:
    """What the operator gave in several places; the first that has a registry counts."""

    places: tuple[AuthFile, ...] = ()

    async def find(self, registry: str) -> Credentials | None:
        """As `AuthFile.find` does."""
        for place in self.places:
            if (found := await place.find(registry)) is not None:
                return found
        return None

    def check(self, registry: str) -> None:
        """Return if the entries for a registry can be used.

        Raises:
            InvalidDocumentError: one can't.
        """
        for place in self.places:
            place.find_entry(registry)

    def has(self, registry: str) -> bool:
        """Whether some place has an entry for a registry, or a program that may keep one."""
        return any(place.has(registry) for place in self.places)


def read_auth_file(file: Path | None, hosts: Hosts = ALL_BY_TLS) -> AuthFile:
    """Read the file; one that isn't there has nothing. Blocks.

    Raises:
        InvalidDocumentError: the file can't be read or isn't as it should be.
    """
    return _NOTHING if file is None else _read(file, hosts) or _NOTHING


def check_credentials(file: Path) -> None:
    """Return if every entry of the file can be used. Blocks.

    Raises:
        InvalidDocumentError: the file isn't there, or an entry isn't as it should be.
    """
    if (auths := _read(file)) is None:
        raise InvalidDocumentError("there is no such file")
    auths.check()


_NOTHING: Final = AuthFile(Document("no file", {}), uid=0)


def _read(file: Path, hosts: Hosts = ALL_BY_TLS) -> AuthFile | None:
    what = "the agent's file of registry credentials"
    try:
        with file.open("rb") as opened:
            uid = os.fstat(opened.fileno()).st_uid
            return AuthFile(parse_document(what, opened.read()), uid, hosts)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidDocumentError(f"{what} can't be read: {error.strerror}") from error


def name_registry(text: str) -> str:
    """Return a registry as names of images begin with it, of what people and files call it."""
    host = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DOCKER_HUB if host in _HUB_KEYS else host


def _parse_entry(entry: Document) -> Credentials | None:
    username, password = entry.text("username", ""), entry.text("password", "")
    token = entry.text("identitytoken", "")
    if "registrytoken" in entry:
        raise InvalidDocumentError(f"{entry.what}: a 'registrytoken' can't be used here")
    if "auth" in entry:
        try:
            pair = base64.b64decode(entry.text("auth"), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            # Without the cause: it would show a part of the secret.
            raise InvalidDocumentError(f"{entry.what}: 'auth' is not base64") from None
        username, _, password = pair.partition(":")
        password = password.rstrip("\0")
    if not username and not token:
        return None
    return Credentials(username=username, password=password, identity_token=token)
