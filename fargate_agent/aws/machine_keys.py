"""The keys of this machine itself, with which roles are assumed."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from fargate_agent.aws.errors import RoleError
from fargate_agent.role_keys import RoleKeys

SETTING: Final = "aws_credentials_file"
PROFILE: Final = "default"


def read_machine_keys(
    file: Path | None, expires_at: datetime, profile: str = PROFILE, name: str = SETTING
) -> RoleKeys:
    """Read a profile of a shared credentials file; blocks.

    They don't expire by themselves: `expires_at` says when they're to be read again. `name` is how
    errors call the file.
    Source: AWS SDKs and Tools reference guide, shared config and credentials files.

    Raises:
        RoleError: there are none, or others can read them too.
    """
    if file is None:
        raise RoleError(
            f"this machine has no AWS keys: set {SETTING}, or assume_roles = false "
            "where a local stack takes any"
        )
    try:
        with file.open(encoding="utf-8") as opened:
            if os.fstat(opened.fileno()).st_mode & 0o077:
                raise RoleError(f"{name} can be read by others than its owner: chmod 600")
            section = _read_profile(opened.read(), profile, name)
    except OSError as error:
        raise RoleError(f"{name} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RoleError(f"{name} is not a credentials file") from None
    try:
        return RoleKeys(
            access_key=section["aws_access_key_id"],
            secret_key=section["aws_secret_access_key"],
            token=section.get("aws_session_token"),
            expires_at=expires_at,
        )
    except KeyError as error:
        raise RoleError(f"{name} has no {error.args[0]} in profile {profile}") from None


def read_environment_keys(environ: Mapping[str, str], expires_at: datetime) -> RoleKeys | None:
    """Return the keys that the environment has; None if they aren't whole.

    Source: AWS SDKs and Tools reference guide, AWS access keys.
    """
    access_key = environ.get("AWS_ACCESS_KEY_ID")
    secret_key = environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return None
    return RoleKeys(
        access_key=access_key,
        secret_key=secret_key,
        token=environ.get("AWS_SESSION_TOKEN") or None,
        expires_at=expires_at,
    )


def find_shared_file(environ: Mapping[str, str]) -> Path | None:
    """Return where AWS's programs look for the shared credentials file; None without a home.

    Source: AWS SDKs and Tools reference guide, location of the shared files.
    """
    if named := environ.get("AWS_SHARED_CREDENTIALS_FILE"):
        return Path(named).absolute()
    home = environ.get("HOME")
    return Path(home) / ".aws" / "credentials" if home else None


def _read_profile(text: str, profile: str, name: str) -> dict[str, str]:
    from configparser import Error, RawConfigParser  # what has no roles does without it

    parser = RawConfigParser(default_section="")
    try:
        parser.read_string(text)
    except Error:  # its text quotes the line, which may be the secret
        raise RoleError(f"{name} is not a credentials file") from None
    return dict(parser[profile]) if profile in parser else {}
