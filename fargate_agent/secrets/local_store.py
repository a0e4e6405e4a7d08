"""Values that stand for those of Secrets Manager and Systems Manager on a machine without AWS.

They are one file of the agent's state directory, encrypted with a key that is a file beside it:
who has a copy of the one alone, in a backup say, has nothing. Both are for root only. What is
written replaces the whole file, so that whoever is interrupted leaves the old one.

All functions block.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fargate_agent.files import replace_file
from fargate_agent.secrets.local_names import is_ever_meant

MAX_VALUE_BYTES: Final = 64 * 1024
"""Source: AWS Secrets Manager, quotas, "Secret value size"."""
MAX_NAMES: Final = 1000
MAX_BYTES: Final = 16 << 20
"""Of all values together, as they are written."""
FILE: Final = "secrets"
KEY_FILE: Final = "secrets.key"
NAME: Final = re.compile(r"[\w/+=.@!:-]{1,2048}", re.ASCII)
"""Letters that names and ARNs of secrets and parameters have."""

_MAGIC: Final = b"fargate secrets 1\n"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
"""Source: NIST SP 800-38D, AES-GCM."""


class LocalSecretsError(Exception):
    """Values can't be read, or one can't be kept. The text holds no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSecret:
    """A value, and the one before it."""

    value: str = field(repr=False)
    set_at: datetime
    previous: str | None = field(default=None, repr=False)


class LocalSecrets:
    """Keeps values by name. One process at a time may change them."""

    def __init__(self, directory: Path) -> None:
        """Keep them in this directory, which need not be there before the first is set."""
        self._file = directory / FILE
        self._key_file = directory / KEY_FILE

    def read(self) -> Mapping[str, LocalSecret]:
        """Return all values by name.

        Raises:
            LocalSecretsError: there are some, and they can't be read.
        """
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise LocalSecretsError(f"{self._file}: {error.strerror}") from error
        return _parse(self._decrypt(data), self._file)

    def put(self, name: str, value: str) -> bool:
        """Keep a value; return whether there was another, which is its previous one then.

        Raises:
            LocalSecretsError: the name or the value can't be, or can't be written.
        """
        check(name, value)
        kept = dict(self.read())
        old = kept.get(name)
        kept[name] = LocalSecret(
            value=value, set_at=datetime.now(UTC), previous=None if old is None else old.value
        )
        if len(kept) > MAX_NAMES:
            raise LocalSecretsError(f"{MAX_NAMES} secrets are kept already, which is the most")
        self._write(kept)
        return old is not None

    def remove(self, name: str) -> bool:
        """Forget a value; return whether there was one.

        Raises:
            LocalSecretsError: the others can't be read, or can't be written.
        """
        kept = dict(self.read())
        if kept.pop(name, None) is None:
            return False
        self._write(kept)
        return True

    def _write(self, kept: Mapping[str, LocalSecret]) -> None:
        text = json.dumps({name: _render(secret) for name, secret in kept.items()}).encode()
        if len(text) > MAX_BYTES:
            raise LocalSecretsError(f"all secrets together have more than {MAX_BYTES >> 20} MiB")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for draft in self._file.parent.glob(f".{FILE}.*"):  # of one that was killed
                draft.unlink()
            replace_file(self._file, self._encrypt(text, self._make_key()))
        except OSError as error:
            raise LocalSecretsError(f"{self._file}: {error.strerror}") from error

    def _make_key(self) -> bytes:
        """Return the key; there is one, on the disk, before anything is encrypted with it."""
        if not self._file.exists() and not self._key_file.exists():
            replace_file(self._key_file, os.urandom(_KEY_BYTES))
        return self._read_key()

    def _read_key(self) -> bytes:
        try:
            key = self._key_file.read_bytes()
        except OSError as error:
            raise LocalSecretsError(f"{self._key_file}: {error.strerror}{self._advice}") from error
        if len(key) != _KEY_BYTES:
            raise LocalSecretsError(f"{self._key_file} is no key{self._advice}")
        return key

    @property
    def _advice(self) -> str:
        return f": put the one back that belongs to {self._file}, or remove both and set them anew"

    def _encrypt(self, text: bytes, key: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # takes 20 ms, 5 MB

        nonce = os.urandom(_NONCE_BYTES)
        return _MAGIC + nonce + AESGCM(key).encrypt(nonce, text, _MAGIC)

    def _decrypt(self, data: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key, rest = self._read_key(), data.removeprefix(_MAGIC)
        if not data.startswith(_MAGIC) or len(rest) <= _NONCE_BYTES:
            raise LocalSecretsError(f"{self._file} holds no secrets of this version")
        try:
            return AESGCM(key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _MAGIC)
        except InvalidTag:
            raise LocalSecretsError(
                f"{self._key_file} isn't the key of {self._file}, or that was changed{self._advice}"
            ) from None


def check(name: str, value: str) -> None:
    """Return if a value can be kept under a name.

    Raises:
        LocalSecretsError: it can't.
    """
    if NAME.fullmatch(name) is None:
        raise LocalSecretsError(
            "a name has 1 to 2048 letters, digits and /_+=.@!:-, as names and ARNs of secrets and "
            "parameters"
        )
    if not is_ever_meant(name):
        raise LocalSecretsError(
            "no reference means that name: give a name without colons, or an ARN without what "
            "definitions put behind it (key, stage, version or label)"
        )
    if not value:
        raise LocalSecretsError("the value is empty, which a secret of AWS can't be")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise LocalSecretsError("the value has more than 64 KiB, which a secret of AWS can't have")
    if "\0" in value:
        raise LocalSecretsError("the value has a NUL character, which no variable can have")


def _render(secret: LocalSecret) -> dict[str, Any]:
    return {
        "value": secret.value,
        "setAt": secret.set_at.isoformat(),
        **({} if secret.previous is None else {"previous": secret.previous}),
    }


def _parse(text: bytes, file: Path) -> dict[str, LocalSecret]:
    try:
        return {
            name: LocalSecret(
                value=one["value"],
                set_at=datetime.fromisoformat(one["setAt"]),
                previous=one.get("previous"),
            )
            for name, one in json.loads(text).items()
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        raise LocalSecretsError(f"{file} holds no secrets of this version") from None
