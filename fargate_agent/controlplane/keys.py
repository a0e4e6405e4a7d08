"""Who may call: the access keys, and what each principal is for.

[[key]]
access_key_id = "AKIA…"
secret_access_key = "…"
principal = "admin"      # or "agent"
"""

import logging
import os
import secrets
import stat
import string
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from fargate_agent.controlplane.errors import StartError

log = logging.getLogger(__name__)

Principal = Literal["admin", "agent"]

_ACCESS_KEY_ALPHABET: Final = string.ascii_uppercase + "234567"
_ACCESS_KEY_CHARS: Final = 16
_SECRET_BYTES: Final = 30
"""Gives 40 characters, the length of AWS's secrets."""


class Key(BaseModel):
    """One access key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access_key_id: Annotated[str, Field(pattern=r"^\w{16,128}$")]
    secret_access_key: Annotated[SecretStr, Field(min_length=16)]
    principal: Principal


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: Annotated[tuple[Key, ...], Field(min_length=1)]


def ensure_keys(path: Path) -> dict[str, Key]:
    """Read the keys by access key id; make one of each principal when there is no file.

    Raises:
        StartError: the file can't be read or made, or a key in it is wrong.
    """
    try:
        if not path.exists():
            write_private(path, _render_new_keys())
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            log.warning("%s can be read by others than its owner", path)
        found = _KeysFile.model_validate(tomllib.loads(path.read_text()))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StartError(f"{path}: {where}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise StartError(f"{path}: {error}") from error
    return {key.access_key_id: key for key in found.key}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _render_new_keys() -> str:
    principals: tuple[Principal, ...] = ("admin", "agent")
    return "\n".join(
        f'[[key]]\naccess_key_id = "{_new_access_key_id()}"\n'
        f'secret_access_key = "{secrets.token_urlsafe(_SECRET_BYTES)}"\nprincipal = "{principal}"\n'
        for principal in principals
    )


def _new_access_key_id() -> str:
    return "AKIA" + "".join(secrets.choice(_ACCESS_KEY_ALPHABET) for _ in range(_ACCESS_KEY_CHARS))
