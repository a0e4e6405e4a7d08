"""What `fargate login` does. A password is on no command line, and never printed."""

import sys
from dataclasses import dataclass
from typing import Final, TypeVar

import click

from fargate_agent.cli.clients.agent import Agent, ask_agent
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import print_json, terminal_width
from fargate_agent.cli.tables import render_rows

MAX_PASSWORD_BYTES: Final = 64 * 1024
NOT_ASKED_FOR: Final = (
    "fargate: {registry} answers without a login, so the user name and the password were not"
    " checked"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What was said on the command line."""

    registry: str
    username: str | None
    password_stdin: bool
    verify: bool


def log_in(connection: Connection, asked: Login, *, as_json: bool) -> None:
    """Keep a login.

    Raises:
        CliError: the registry doesn't take it, or the agent doesn't.
    """
    username, password = _read_username(asked), _read_password(asked)
    told = ask_agent(
        connection.agent_socket,
        lambda agent: agent.log_in(asked.registry, username, password, verify=asked.verify),
    )
    if as_json:
        print_json(told)
    else:
        click.echo(_tell_kept(told["registry"], asked))
    if told["asked"] is False:
        click.echo(NOT_ASKED_FOR.format(registry=told["registry"]), err=True)


def _tell_kept(registry: str, asked: Login) -> str:
    if asked.verify:
        return f"logged in to {registry}"
    return f"kept the login for {registry}, which wasn't asked whether it takes it"


def list_logins(connection: Connection, *, as_json: bool) -> None:
    """Print registries and user names."""
    logins = ask_agent(connection.agent_socket, Agent.logins)
    if as_json:
        print_json({"logins": logins})
        return
    rows = [(one["registry"], one["username"] or "-", one["from"]) for one in logins]
    for line in render_rows(("REGISTRY", "USER", "FROM"), rows, terminal_width()):
        click.echo(line)


def log_out(connection: Connection, registry: str, *, as_json: bool) -> None:
    """Make the agent forget a login."""
    name = ask_agent(connection.agent_socket, lambda agent: agent.log_out(registry))
    if as_json:
        print_json({"registry": name})
    else:
        click.echo(f"logged out of {name}")


def _read_username(asked: Login) -> str:
    if asked.username is not None:
        return asked.username
    if not sys.stdin.isatty():
        raise CliError("give the user name with --username: standard input is no terminal")
    return str(click.prompt("user name", err=True))


def _read_password(asked: Login) -> str:
    """Return the password.

    Raises:
        CliError: there is none.
    """
    if asked.password_stdin:
        return _decode(sys.stdin.buffer.read(MAX_PASSWORD_BYTES + 3))
    if not sys.stdin.isatty():
        raise CliError("standard input is no terminal: give the password with --password-stdin")
    return str(click.prompt("password", hide_input=True, err=True))


def _decode(data: bytes) -> str:
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise CliError("standard input is empty: it has to be the password")
    if len(data) > MAX_PASSWORD_BYTES:
        raise CliError("the password has more than 64 KiB")
    try:
        return data.decode()
    except UnicodeError:
        raise CliError("the password is not UTF-8 text") from None
