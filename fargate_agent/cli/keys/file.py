"""Changes to the control plane's `keys.toml`: as a whole or not at all, and one at a time."""

import fcntl
import os
import pwd
import re
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fargate_agent.cli.failure import CliError
from fargate_agent.controlplane.access.keys import (
    ADMIN,
    BUILT_IN_POLICIES,
    PRINCIPAL_NAME,
    new_key,
    new_secret,
    read_keys,
    render_keys,
)
from fargate_agent.controlplane.access.policy import parse_policy
from fargate_agent.controlplane.errors import StartError
from fargate_agent.files import draft_file

Document = dict[str, Any]
"""What stands in the file; `read_keys` has found nothing wrong with it."""


def read_key_document(path: Path) -> Document:
    """Read the file.

    Raises:
        CliError: it isn't there, may not be read, or makes no sense.
    """
    try:
        text = path.read_text()
        read_keys(path)
    except OSError as error:
        raise _refusal(path, error) from None
    except (StartError, ValueError) as error:
        raise CliError(str(error)) from error
    return tomllib.loads(text)


@contextmanager
def change_keys(path: Path) -> Iterator[Document]:
    """Hold the file and give what stands there; what became of it afterwards is written.

    Owner and mode stay. Comments are lost.

    Raises:
        CliError: it may not be read or written, or makes no sense, before or afterwards.
    """
    path = path.resolve()
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(path, error) from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # the file itself is replaced, so it can't be held
        document = read_key_document(path)
        yield document
        _replace(path, render_keys(document))
    finally:
        os.close(directory)


def add_key(
    document: Document, principal: str, policy: str | None, expires_in: timedelta | None
) -> dict[str, Any]:
    """Add a key, and return it; its principal may be new if it comes with a policy.

    Raises:
        CliError: the principal is unknown, has a policy already, or the policy is wrong.
    """
    known = principal in BUILT_IN_POLICIES or principal in document.get("principal", {})
    if known and policy is not None:
        raise CliError(f"principal {principal} has a policy already: see fargate keys policy")
    if policy is not None:
        set_policy(document, principal, policy)
    elif not known:
        raise CliError(f"there is no principal {principal}: make one with --policy FILE")
    now = datetime.now(UTC)
    key = new_key(principal, now, None if expires_in is None else now + expires_in)
    document["key"].append(key)
    return key


def set_status(document: Document, access_key_id: str, status: str) -> None:
    """Make a key `Active` or `Inactive`.

    Raises:
        CliError: there is no such key, or it is the last one of an admin.
    """
    key = _find(document, access_key_id)
    if status != "Active":
        _keep_an_admin(document, key)
    key["status"] = status


def rotate_key(document: Document, access_key_id: str) -> dict[str, Any]:
    """Give a key another secret, and return it; what it has registered stays its own.

    Raises:
        CliError: there is no such key, or it is a temporary one.
    """
    key = _find(document, access_key_id)
    if "session_token" in key:
        raise CliError(f"{access_key_id} is temporary: create another one instead")
    key["secret_access_key"] = new_secret()
    return key


def remove_key(document: Document, access_key_id: str) -> None:
    """Remove a key; its principal stays.

    Raises:
        CliError: there is no such key, or it is the last one of an admin.
    """
    key = _find(document, access_key_id)
    _keep_an_admin(document, key)
    document["key"].remove(key)


def find_policy(document: Document, principal: str) -> str:
    """Return the policy of a principal.

    Raises:
        CliError: there is no such principal.
    """
    if principal in BUILT_IN_POLICIES:
        return BUILT_IN_POLICIES[principal]
    try:
        return str(document["principal"][principal]["policy"])
    except KeyError:
        raise CliError(f"there is no principal {principal}") from None


def set_policy(document: Document, principal: str, policy: str) -> None:
    """Give a principal a policy, and make it if there is none of that name.

    Raises:
        CliError: the principal is built in or has no proper name, or the policy is wrong.
    """
    if principal in BUILT_IN_POLICIES:
        raise CliError(f"principal {principal} is built in, so its policy can't be changed")
    if not re.fullmatch(PRINCIPAL_NAME, principal):
        raise CliError(f"'{principal}' can't be the name of a principal")
    try:
        parse_policy(policy)
    except ValueError as error:
        raise CliError(f"policy: {error}") from error
    document.setdefault("principal", {})[principal] = {"policy": policy}


def _find(document: Document, access_key_id: str) -> dict[str, Any]:
    keys: list[dict[str, Any]] = document["key"]
    for key in keys:
        if key["access_key_id"] == access_key_id:
            return key
    raise CliError(f"there is no key {access_key_id}")


def _keep_an_admin(document: Document, leaving: dict[str, Any]) -> None:
    others = [key for key in document["key"] if key is not leaving]
    if _is_lasting_admin(leaving) and not any(map(_is_lasting_admin, others)):
        raise CliError(
            f"{leaving['access_key_id']} is the last active key of principal {ADMIN}:"
            " create another one first"
        )


def _is_lasting_admin(key: dict[str, Any]) -> bool:
    """Whether it will go on as the key of an admin; one that expires won't."""
    is_active = key.get("status", "Active") == "Active"
    return key["principal"] == ADMIN and is_active and "expires_at" not in key


def _replace(path: Path, text: str) -> None:
    try:
        found = path.stat()
        mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
        with draft_file(path, text, mode=mode, owner=owner) as draft:
            read_keys(draft)  # what would not be taken is not written
    except StartError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise _refusal(path, error) from None


def _refusal(path: Path, error: OSError) -> CliError:
    if isinstance(error, FileNotFoundError):
        return CliError(f"{path}: not there; the control plane makes it when it starts")
    if isinstance(error, PermissionError):
        owner = "its owner"
        with suppress(OSError, KeyError):
            owner = pwd.getpwuid(path.stat().st_uid).pw_name
        names = "root" if owner == "root" else f"root and {owner}"
        return CliError(f"{path}: only {names} may do that: use sudo")
    return CliError(f"{path}: {error.strerror}")
