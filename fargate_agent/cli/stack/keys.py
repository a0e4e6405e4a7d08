"""The access keys in the `keys.toml` of a control plane, as its clients need them."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from fargate_agent.cli.failure import CliError


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An access key of the control plane."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def read_keys(file: Path) -> dict[str, Key]:
    """The keys of the control plane by principal; none before it has made them.

    Raises:
        CliError: the file makes no sense.
    """
    try:
        return parse_keys(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CliError(f"{file}: {error}") from error


def list_key_ids(file: Path) -> set[str]:
    """The ids of all keys of the control plane, whatever they may still do; none without a file.

    Raises:
        CliError: the file makes no sense.
    """
    try:
        found = tomllib.loads(file.read_text()).get("key", [])
    except FileNotFoundError:
        return set()
    except ValueError as error:
        raise CliError(f"{file}: {error}") from error
    return {str(entry.get("access_key_id")) for entry in found}


def parse_keys(text: str) -> dict[str, Key]:
    """Read the control plane's `keys.toml`: the first lasting key of each principal.

    Raises:
        ValueError: it is not TOML, or a key lacks a member.
    """
    keys: dict[str, Key] = {}
    for entry in tomllib.loads(text).get("key", []):
        if entry.get("status", "Active") != "Active" or "expires_at" in entry:
            continue
        try:
            key = Key(
                access_key_id=entry["access_key_id"], secret_access_key=entry["secret_access_key"]
            )
            keys.setdefault(entry["principal"], key)
        except (KeyError, TypeError) as error:
            raise ValueError(f"a key lacks {error}") from error
    return keys
