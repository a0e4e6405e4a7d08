"""The keys of this machine itself, with which roles are assumed."""

import os
from datetime import datetime
from pathlib import Path
from typing import Final

from fargate_agent.aws.errors import RoleError
from fargate_agent.role_keys import RoleKeys

SETTING: Final = "aws_credentials_file"
PROFILE: Final = "default"


def read_machine_keys(file: Path | None, expires_at: datetime) -> RoleKeys:
    """Read the profile `default` of a shared credentials file; blocks.

    They don't expire by themselves: `expires_at` says when they're to be read again.
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
                raise RoleError(f"{SETTING} can be read by others than its owner: chmod 600")
            section = _read_profile(opened.read())
    except OSError as error:
        raise RoleError(f"{SETTING} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RoleError(f"{SETTING} is not a credentials file") from None
    try:
        return RoleKeys(
            access_key=section["aws_access_key_id"],
            secret_key=section["aws_secret_access_key"],
            token=section.get("aws_session_token"),
            expires_at=expires_at,
        )
    except KeyError as error:
        raise RoleError(f"{SETTING} has no {error.args[0]} in profile {PROFILE}") from None


def _read_profile(text: str) -> dict[str, str]:
    from configparser import Error, RawConfigParser  # an agent without roles does without it

    parser = RawConfigParser(default_section="")
    try:
        parser.read_string(text)
    except Error:  # its text quotes the line, which may be the secret
        raise RoleError(f"{SETTING} is not a credentials file") from None
    return dict(parser[PROFILE]) if PROFILE in parser else {}
