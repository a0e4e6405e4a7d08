"""Whether a stack has AWS or does without: decided once, when it starts, for both programs.

What its settings say counts first, be it in the environment or in the files. Then the keys of the
machine: those of the environment, unless they are a stack's, or of the shared credentials file; or
AWS_ENDPOINT_URL. With none of it there is no AWS.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fargate_agent.aws.errors import RoleError
from fargate_agent.aws.machine_keys import PROFILE, find_shared_file, read_machine_keys
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.stack.keys import list_key_ids
from fargate_agent.cli.stack.place import read_file_settings
from fargate_agent.cli.stack.ports import client_url
from fargate_agent.cli.stack.programs import Place

KEY_VARIABLES: Final = frozenset(
    {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
)

NO_KEYS: Final = f"in profile {PROFILE}"
"""What is said of a file with other profiles alone."""

_NO: Final = frozenset({"0", "f", "false", "n", "no", "off"})
"""Source: Pydantic, documentation of booleans."""

_SHARED: Final = ("aws", "aws_credentials_file", "aws_endpoint_url", "assume_roles")
"""Settings that both programs have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsMode:
    """What the two programs are told of AWS, by the names of settings in the environment."""

    line: str
    """Says it to a person."""
    control_plane: Mapping[str, str] = field(default_factory=dict)
    agent: Mapping[str, str] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()
    """Variables that the programs don't get: they hold the key of a stack."""


def choose_aws_mode(
    layout: Layout, place: Place, environ: Mapping[str, str] = os.environ
) -> AwsMode:
    """Decide; blocks.

    Raises:
        CliError: a settings file, or the stack's file of keys, makes no sense.
    """
    plane = _read_own(layout.root / "control-plane.toml", "FARGATE_CONTROL_PLANE_", environ)
    agent = _read_own(layout.root / "agent.toml", "FARGATE_AGENT_", environ)
    is_foreign = _is_of_a_stack(layout, environ)
    found = _find({**agent, **plane}, place, environ, is_foreign=is_foreign)
    asked = plane.get("aws") or agent.get("aws")
    is_real = asked == "real" or (asked is None and found.is_there)
    both = {"aws": "real", **found.settings} if is_real else {"aws": "local"}
    shared = {name: value for name, value in both.items() if name in {"aws", "aws_endpoint_url"}}
    return AwsMode(
        line=_render_real(found, place) if is_real else _render_local(found),
        control_plane=_tell(both, plane),
        agent=_tell(shared, agent),
        withheld=KEY_VARIABLES if is_foreign else frozenset(),
    )


def _read_own(file: Path, prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Read what a program has of its own; the environment wins over the file."""
    path = file if file.exists() else Path(environ.get(f"{prefix}CONFIG") or file)
    settings: dict[str, Any] = {**read_file_settings(path)}
    for name in _SHARED:
        if (value := environ.get(prefix + name.upper())) is not None:
            settings[name] = value
    return {name: settings[name] for name in _SHARED if name in settings}


@dataclass(slots=True)
class _Found:
    """What leads to AWS."""

    settings: dict[str, str]
    keys: str = ""
    """Which keys there are, in words."""
    fault: str = ""
    """Why the machine's keys can't be used."""

    @property
    def is_there(self) -> bool:
        """Whether anything does; `assume_roles` alone leads nowhere."""
        return bool(self.keys) or "aws_endpoint_url" in self.settings


def _find(
    own: Mapping[str, Any], place: Place, environ: Mapping[str, str], *, is_foreign: bool
) -> _Found:
    """Look in the settings of both programs, then around them."""
    found = _Found({name: _render_value(own[name]) for name in _SHARED[1:] if name in own})
    is_set = "aws_endpoint_url" in own
    if "aws_credentials_file" in own:
        found.keys = f"the keys in {own['aws_credentials_file']}"
        return found
    endpoint = environ.get("AWS_ENDPOINT_URL", "")
    if endpoint and not is_set and endpoint.rstrip("/") != client_url(place.listen):
        found.settings["aws_endpoint_url"] = endpoint
    if all(environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")):
        found.keys = "" if is_foreign else "the keys in the environment"
    file = find_shared_file(environ)
    if found.keys or is_set or file is None or not file.is_file():
        return found
    try:
        read_machine_keys(file, datetime.now(UTC), name=str(file))
    except RoleError as error:
        found.fault = "" if NO_KEYS in str(error) else str(error)
    else:
        found.keys = f"the keys in {file}"
        found.settings["aws_credentials_file"] = str(file)
    return found


def _is_of_a_stack(layout: Layout, environ: Mapping[str, str]) -> bool:
    """Whether the key in the environment is one of this stack, or came by `fargate env`."""
    key = environ.get("AWS_ACCESS_KEY_ID")
    if not key:
        return False
    if "AWS_ENDPOINT_URL_ECS" in environ and "FARGATE_AGENT_SOCKET" in environ:
        return True
    return key in list_key_ids(layout.control_plane / "keys.toml")


def _tell(both: Mapping[str, str], own: Mapping[str, Any]) -> dict[str, str]:
    """What a program has of its own stays."""
    return {name.upper(): value for name, value in both.items() if name not in own}


def _render_real(found: _Found, place: Place) -> str:
    where = found.settings.get("aws_endpoint_url") or f"AWS in {place.region}"
    if found.settings.get("assume_roles", "").lower() in _NO:
        return f"AWS: real, at {where}; tasks get {found.keys or 'made-up keys'} as they are"
    return f"AWS: real, at {where}; roles are assumed with {found.keys or 'made-up keys'}"


def _render_local(found: _Found) -> str:
    line = "AWS: local, this machine does without; secrets are those of fargate secrets"
    return f"{line} ({found.fault})" if found.fault else line


def _render_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
