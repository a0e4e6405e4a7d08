"""The logins of `fargate login`: one file of the agent's state directory, in Docker's form.

Only root can read it. What is written replaces the whole file. All functions block.
"""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fargate_agent.files import replace_file
from fargate_agent.image.document import Document, InvalidDocumentError, parse_document
from fargate_agent.image.registry.auth import (
    ALL_BY_TLS,
    AuthFile,
    Auths,
    Credentials,
    read_auth_file,
)
from fargate_agent.image.registry.hosts import Hosts

FILE: Final = "registry-logins.json"
MAX_LOGINS: Final = 1000
MAX_SECRET_BYTES: Final = 64 * 1024
"""Keys of service accounts have some KiB."""

_USERNAME: Final = re.compile(r"[^\x00-\x1f\x7f:]{1,1024}")
"""Source: RFC 7617, 2."""


class KeptLoginsError(Exception):
    """Logins can't be read, or one can't be kept. The text holds no secret."""


class KeptLogins:
    """Keeps one login for each registry. One process at a time may change them."""

    def __init__(self, state_dir: Path) -> None:
        """Keep them in this directory, which need not be there before the first is kept."""
        self.file = state_dir / FILE

    def read(self, hosts: Hosts = ALL_BY_TLS) -> AuthFile:
        """Return all logins, for registries that are spoken to as `hosts` says.

        Raises:
            InvalidDocumentError: there are some, and they can't be read.
        """
        return AuthFile(self._document(), uid=0, hosts=hosts)

    def put(self, registry: str, credentials: Credentials) -> bool:
        """Keep a login; return whether it replaces another.

        Raises:
            KeptLoginsError: it can't be kept.
        """
        check_login(credentials)
        entries = self._entries()
        replaced = registry in entries
        pair = f"{credentials.username}:{credentials.password}".encode()
        entries[registry] = {"auth": base64.b64encode(pair).decode()}
        if len(entries) > MAX_LOGINS:
            raise KeptLoginsError(f"{MAX_LOGINS} logins are kept already, which is the most")
        self._write(entries)
        return replaced

    def remove(self, registry: str) -> bool:
        """Forget a login; return whether there was one.

        Raises:
            KeptLoginsError: the others can't be read, or can't be written.
        """
        entries = self._entries()
        if entries.pop(registry, None) is None:
            return False
        self._write(entries)
        return True

    def _document(self) -> Document:
        what = "the agent's file of kept logins"
        try:
            return parse_document(what, self.file.read_bytes())
        except FileNotFoundError:
            return Document(what, {})
        except OSError as error:
            raise InvalidDocumentError(f"{what} can't be read: {error.strerror}") from error

    def _entries(self) -> dict[str, Any]:
        try:
            auths = self._document().child("auths")
            return {key: {"auth": auths.child(key).text("auth")} for key in auths.keys}
        except InvalidDocumentError as error:
            raise KeptLoginsError(f"{self.file}: {error}: remove it, and log in again") from error

    def _write(self, entries: Mapping[str, Any]) -> None:
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for draft in self.file.parent.glob(f".{FILE}.*"):  # of one that was killed
                draft.unlink()
            replace_file(self.file, json.dumps({"auths": entries}, indent=1))
        except OSError as error:
            raise KeptLoginsError(f"{self.file}: {error.strerror}") from error


def check_login(credentials: Credentials) -> None:
    """Return if a login can be kept.

    Raises:
        KeptLoginsError: it can't.
    """
    if _USERNAME.fullmatch(credentials.username) is None:
        raise KeptLoginsError("the user name is empty, or has a colon or a control character")
    if not credentials.password:
        raise KeptLoginsError("the password is empty")
    if len(credentials.password.encode()) > MAX_SECRET_BYTES:
        raise KeptLoginsError(f"the password has more than {MAX_SECRET_BYTES >> 10} KiB")
    if "\0" in credentials.password:
        raise KeptLoginsError("the password has a NUL character")


def read_auths(
    logins: KeptLogins | None, auth_file: Path | None, hosts: Hosts = ALL_BY_TLS
) -> Auths:
    """Return the operator's credentials: those of `fargate login` come before those of the file.

    Raises:
        InvalidDocumentError: a file can't be read or isn't as it should be.
    """
    file = read_auth_file(auth_file, hosts)
    return Auths((file,) if logins is None else (logins.read(hosts), file))
