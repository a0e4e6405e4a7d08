"""Who may call: the access keys in `keys.toml`, and what their principals may do.

[[key]]
access_key_id = "AKIA…"
secret_access_key = "…"
principal = "ci"
status = "Active"                      # or "Inactive"
created_at = 2026-11-22T07:00:00Z
expires_at = 2026-11-22T08:00:00Z      # of a temporary key, which has a session token too
session_token = "…"

[principal.ci]
policy = '''{"Version": "2012-10-17", "Statement": [ … ]}'''

The principals `admin` and `agent` need no table. Any number of keys may be those of agents; what
one has registered is its own.
"""

import logging
import secrets
import stat
import string
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tomli_w
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, field_validator

from fargate_agent.controlplane.access.policy import Policy, parse_policy
from fargate_agent.controlplane.errors import StartError
from fargate_agent.files import replace_file
from fargate_agent.settings_file import SettingsError, read_document
from fargate_agent.toml_lines import find_line

log = logging.getLogger(__name__)

ADMIN: Final = "admin"
AGENT: Final = "agent"

BUILT_IN_POLICIES: Final = {
    ADMIN: """\
{
  "Version": "2012-10-17",
  "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
}
""",
    # Each of these asks whether the key is the one that registered the instance; the last three
    # answer what tasks ask through their metadata endpoint. Source of the other names: AWS managed
    # policy AmazonEC2ContainerServiceforEC2Role.
    AGENT: """\
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [
        "ecs:DiscoverPollEndpoint",
        "ecs:Poll",
        "ecs:RegisterContainerInstance",
        "ecs:Submit*",
        "ecs:GetTaskProtection",
        "ecs:ListTagsForResource",
        "ecs:UpdateTaskProtection"
      ],
      "Resource": "*"
    }
  ]
}
""",
}
"""What the principals may do that need no table."""

PRINCIPAL_NAME: Final = r"^[\w+=,.@-]{1,64}$"
"""Source: IAM API reference, `UserName`."""

_ACCESS_KEY_ALPHABET: Final = string.ascii_uppercase + "234567"
_ACCESS_KEY_CHARS: Final = 16
_PERMANENT: Final = "AKIA"
_TEMPORARY: Final = "ASIA"
"""Source: IAM user guide, "Unique identifiers"."""
_SECRET_BYTES: Final = 30
"""Gives 40 characters, the length of AWS's secrets."""
_TOKEN_BYTES: Final = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An access key, and what its principal may do."""

    access_key_id: str
    secret_access_key: SecretStr
    principal: str
    policy: Policy
    is_active: bool
    session_token: SecretStr | None
    expires_at: datetime | None

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now


class _KeyEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    access_key_id: Annotated[str, Field(pattern=r"^\w{16,128}$")]
    secret_access_key: Annotated[SecretStr, Field(min_length=16)]
    principal: str
    status: Literal["Active", "Inactive"] = "Active"
    session_token: Annotated[SecretStr, Field(min_length=16)] | None = None
    expires_at: AwareDatetime | None = None
    created_at: AwareDatetime | None = None


class _PrincipalEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    policy: Policy

    @field_validator("policy", mode="before")
    @classmethod
    def _parse(cls, value: object) -> Policy:
        if not isinstance(value, str):
            raise ValueError("must be a string with a policy in JSON")
        return parse_policy(value)


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: Annotated[tuple[_KeyEntry, ...], Field(min_length=1)]
    principal: dict[Annotated[str, Field(pattern=PRINCIPAL_NAME)], _PrincipalEntry] = {}


def ensure_keys(path: Path) -> dict[str, Key]:
    """Read the keys by access key id; make one of each principal when there is no file.

    Raises:
        StartError: the file can't be read or made, or what it says is wrong.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _render_new_keys())
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            log.warning("%s can be read by others than its owner", path)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
    return read_keys(path)


def read_keys(path: Path) -> dict[str, Key]:
    """Read the keys by access key id.

    Raises:
        StartError: the file can't be read, or what it says is wrong; the text is one line that
            names file, line and key, and never a secret.
    """
    try:
        found = read_document(_KeysFile, path)
    except SettingsError as error:
        raise StartError(str(error)) from error
    for place, fault in _find_faults(found):
        raise StartError(f"{_render_place(path, place)}: {fault}")
    policies = {name: parse_policy(text) for name, text in BUILT_IN_POLICIES.items()}
    policies |= {name: entry.policy for name, entry in found.principal.items()}
    return {
        entry.access_key_id: Key(
            access_key_id=entry.access_key_id,
            secret_access_key=entry.secret_access_key,
            principal=entry.principal,
            policy=policies[entry.principal],
            is_active=entry.status == "Active",
            session_token=entry.session_token,
            expires_at=entry.expires_at,
        )
        for entry in found.key
    }


def _find_faults(found: _KeysFile) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Give what is wrong between the entries: the path of a key, and the fault."""
    for name in found.principal:
        if name in BUILT_IN_POLICIES:
            yield ("principal", name), "is built in, so its policy can't be changed"
    seen: set[str] = set()
    for position, entry in enumerate(found.key):
        if entry.principal not in {*BUILT_IN_POLICIES, *found.principal}:
            yield ("key", position, "principal"), "there is no such principal with a policy"
        if entry.access_key_id in seen:
            yield ("key", position, "access_key_id"), "another key has the same id"
        seen.add(entry.access_key_id)


def _render_place(path: Path, place: tuple[str | int, ...]) -> str:
    with suppress(OSError):
        path_line = f"{path}:{find_line(path.read_text(), place)}"
        return f"{path_line}: {'.'.join(map(str, place))}"
    return str(path)


def new_key(principal: str, now: datetime, expires_at: datetime | None = None) -> dict[str, Any]:
    """Make a key as it stands in `keys.toml`; one that expires has a session token."""
    entry: dict[str, Any] = {
        "access_key_id": _new_access_key_id(_TEMPORARY if expires_at else _PERMANENT),
        "secret_access_key": new_secret(),
        "principal": principal,
        "status": "Active",
        "created_at": now.astimezone(UTC).replace(microsecond=0),
    }
    if expires_at is not None:
        entry["expires_at"] = expires_at.astimezone(UTC).replace(microsecond=0)
        entry["session_token"] = secrets.token_urlsafe(_TOKEN_BYTES)
    return entry


def new_secret() -> str:
    """Make the secret of a key."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def render_keys(document: Mapping[str, Any]) -> str:
    """Write keys and principals as `keys.toml` has them."""
    return tomli_w.dumps(document, multiline_strings=True)


def _render_new_keys() -> str:
    now = datetime.now(UTC)
    return render_keys({"key": [new_key(principal, now) for principal in BUILT_IN_POLICIES]})


def _new_access_key_id(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_ACCESS_KEY_ALPHABET) for _ in range(_ACCESS_KEY_CHARS))
