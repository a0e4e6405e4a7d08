"""`fargate keys`: who may call the control plane, and what they may do.

All is in its `keys.toml`, which a running control plane reads again by itself.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from fargate_agent.cli.connection import (
    DEFAULT_STATE_DIR,
    find_state_dir,
    parse_env,
    render_env,
)
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.options import output_option

Command = TypeVar("Command", bound=Callable[..., Any])

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_DURATION: Final = timedelta(days=3650)
"""A key that is to last longer need not expire."""


def _find_file(context: click.Context, _: click.Parameter, keys_file: Path | None) -> Path:
    state_dir = context.params.pop("state_dir", None)
    if keys_file is not None and state_dir is not None:
        raise click.UsageError("--keys-file and --state-dir can't be given together")
    return keys_file or find_keys_file(state_dir)


def _on_keys(command: Command) -> Command:
    """Give a command the options that say which file is meant."""
    for option in (
        click.option(
            "--keys-file",
            "file",
            type=click.Path(path_type=Path),
            callback=_find_file,
            metavar="FILE",
            help="The keys.toml of a control plane.",
        ),
        click.option(
            "--state-dir",
            type=click.Path(path_type=Path),
            is_eager=True,
            metavar="DIR",
            help="The stack that `fargate up --state-dir DIR` runs. Otherwise the one that"
            " FARGATE_AGENT_SOCKET leads to, then the one in"
            f" {DEFAULT_STATE_DIR} if it is ready, then the service of this machine.",
        ),
    ):
        command = option(command)
    return command


def _parse_duration(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,6})([smhd])", text)
    if match is None:
        raise click.BadParameter("must be a time such as 90s, 15m, 12h or 7d")
    duration = timedelta(seconds=int(match[1]) * _UNITS_S[match[2]])
    if duration > _MAX_DURATION:
        raise click.BadParameter(f"must be at most {_MAX_DURATION.days}d")
    return duration


@click.group()
def keys() -> None:
    """Create, list, rotate and remove access keys; say what their principals may do."""


@keys.command()
@click.option(
    "--principal", required=True, metavar="NAME", help="Whose key: admin, agent, or else."
)
@click.option(
    "--policy",
    metavar="FILE",
    help="What a new principal may do, in IAM's JSON; - is standard input.",
)
@click.option(
    "--expires-in",
    callback=_parse_duration,
    metavar="TIME",
    help="Make a temporary key, with a session token: 90s, 15m, 12h, 7d.",
)
@_on_keys
def create(principal: str, policy: str | None, expires_in: timedelta | None, file: Path) -> None:
    """Create a key, and print it as lines for a shell: its secret is never shown again."""
    from fargate_agent.cli.keys.file import add_key, change_keys

    text = None if policy is None else _read_text(policy)
    with change_keys(file) as document:
        key = add_key(document, principal, text, expires_in)
    _print_secret(key)


@keys.command("ls")
@output_option
@_on_keys
def list_(output: str, file: Path) -> None:
    """List keys, without their secrets."""
    from fargate_agent.cli.keys.file import read_key_document
    from fargate_agent.cli.output import print_json, terminal_width

    shown = [_render_key(key) for key in read_key_document(file)["key"]]
    if output == "json":
        print_json({"keys": shown})
        return
    for line in render_keys(shown, terminal_width()):
        click.echo(line)


@keys.command()
@click.argument("key_id", metavar="ID")
@_on_keys
def disable(key_id: str, file: Path) -> None:
    """Refuse what key ID signs, until it is enabled again."""
    _set_status(file, key_id, "Inactive")


@keys.command()
@click.argument("key_id", metavar="ID")
@_on_keys
def enable(key_id: str, file: Path) -> None:
    """Let key ID be used again."""
    _set_status(file, key_id, "Active")


@keys.command()
@click.argument("key_id", metavar="ID")
@_on_keys
def rotate(key_id: str, file: Path) -> None:
    """Give key ID another secret, and print it as create does; the old one is refused.

    An agent's instance belongs to the id of its key, so this is how its secret is replaced.
    """
    from fargate_agent.cli.keys.file import change_keys, rotate_key

    with change_keys(file) as document:
        key = rotate_key(document, key_id)
    _print_secret(key)


@keys.command("rm")
@click.argument("key_id", metavar="ID")
@_on_keys
def remove(key_id: str, file: Path) -> None:
    """Remove key ID."""
    from fargate_agent.cli.keys.file import change_keys, remove_key

    with change_keys(file) as document:
        remove_key(document, key_id)


@keys.command()
@click.argument("principal", metavar="NAME")
@click.argument("policy", metavar="[FILE]", required=False)
@_on_keys
def policy(principal: str, policy: str | None, file: Path) -> None:
    """Print what principal NAME may do, or let it do what FILE says; - is standard input."""
    from fargate_agent.cli.keys.file import (
        change_keys,
        find_policy,
        read_key_document,
        set_policy,
    )

    if policy is None:
        click.echo(find_policy(read_key_document(file), principal).rstrip("\n"))
        return
    text = _read_text(policy)
    with change_keys(file) as document:
        set_policy(document, principal, text)


def find_keys_file(state_dir: Path | None, default_state_dir: Path = DEFAULT_STATE_DIR) -> Path:
    """Find the keys of a stack, or of the service that is installed on this machine.

    Raises:
        CliError: the settings of the service make no sense.
    """
    state_dir = state_dir or find_state_dir()
    if state_dir is None and _is_meant(Layout(default_state_dir).env):
        state_dir = default_state_dir
    if state_dir is not None:
        return Layout(state_dir.absolute()).control_plane / "keys.toml"

    from fargate_agent.controlplane.errors import StartError
    from fargate_agent.controlplane.settings import read_settings

    try:
        return read_settings(None).keys_path
    except StartError as error:
        raise CliError(str(error)) from error


def _is_meant(env: Path) -> bool:
    """Whether that stack is ready, and the environment leads to no other control plane."""
    wanted = os.environ.get("AWS_ENDPOINT_URL_ECS")
    with suppress(FileNotFoundError, NotADirectoryError):
        found = parse_env(env.read_text())
        return wanted in (None, "", found.get("AWS_ENDPOINT_URL_ECS"))
    return False


def render_keys(keys: Sequence[dict[str, str | None]], width: int) -> list[str]:
    """One row per access key, with the members of its first one as header."""
    from fargate_agent.cli.tables import render_rows

    rows = [tuple(value or "-" for value in key.values()) for key in keys]
    return render_rows(tuple(name.upper() for name in keys[0]), rows, width)


def _print_secret(key: dict[str, Any]) -> None:
    shown = {
        "AWS_ACCESS_KEY_ID": key["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["secret_access_key"],
        "AWS_SESSION_TOKEN": key.get("session_token"),
    }
    click.echo(render_env({name: value for name, value in shown.items() if value}), nl=False)


def _set_status(file: Path, key_id: str, status: str) -> None:
    from fargate_agent.cli.keys.file import change_keys, set_status

    with change_keys(file) as document:
        set_status(document, key_id, status)


def _read_text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except UnicodeDecodeError:
        raise CliError(f"{file}: not UTF-8") from None


def _render_key(key: dict[str, Any]) -> dict[str, str | None]:
    return {
        "key": key["access_key_id"],
        "principal": key["principal"],
        "status": key.get("status", "Active"),
        "created": _render_time(key.get("created_at")),
        "expires": _render_time(key.get("expires_at")),
    }


def _render_time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
