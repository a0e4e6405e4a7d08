"""What `fargate secrets` does. A value is on no command line, in no variable, and never printed."""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

import click

from fargate_agent.cli.clients.agent import Agent, ask_agent
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import print_json, terminal_width
from fargate_agent.cli.tables import render_rows

MAX_VALUE_BYTES: Final = 64 * 1024
"""Source: AWS Secrets Manager, quotas, "Secret value size"."""
MAX_LINE_BYTES: Final = 4094
"""What a terminal gives of a line; it leaves out the rest without a word.

Source: Linux, drivers/tty/n_tty.c, N_TTY_BUF_SIZE.
"""
NOT_USED: Final = (
    "fargate: tasks don't get these values: the agent reads secrets from AWS. With the agent's"
    ' setting aws = "local" it takes them from here.'
)

T = TypeVar("T")


def set_secret(connection: Connection, name: str, file: str | None, *, as_json: bool) -> None:
    """Set a value that is read from a file, standard input or the terminal.

    Raises:
        CliError: there is none, it can't be one, or the agent doesn't take it.
    """
    value = _read_file(file) if file is not None else _read_input(name)
    used = ask_agent(connection.agent_socket, lambda agent: agent.set_secret(name, value))
    if as_json:
        print_json({"set": name, "used": used})
    else:
        click.echo(f"set {name}")
    _tell_use(used)


def list_secrets(connection: Connection, *, as_json: bool) -> None:
    """Print names and dates."""
    secrets, used = ask_agent(connection.agent_socket, Agent.secrets)
    if as_json:
        print_json({"secrets": secrets, "used": used})
    else:
        for line in render_secrets(secrets, terminal_width()):
            click.echo(line)
    _tell_use(used)


def render_secrets(secrets: Sequence[dict[str, str]], width: int) -> list[str]:
    """One row per secret; times are local."""
    rows = [(one["name"], _render_time(one["setAt"])) for one in secrets]
    return render_rows(("NAME", "SET"), rows, width)


def remove_secret(connection: Connection, name: str, *, as_json: bool) -> None:
    """Make the agent forget a value."""
    ask_agent(connection.agent_socket, lambda agent: agent.remove_secret(name))
    if as_json:
        print_json({"removed": name})
    else:
        click.echo(f"removed {name}")


def _read_file(file: str) -> bytes:
    """Return all of a file, with a newline at its end if there is one."""
    if file == "-":
        return _checked(sys.stdin.buffer.read(MAX_VALUE_BYTES + 1), "standard input")
    try:
        with Path(file).open("rb") as opened:
            return _checked(opened.read(MAX_VALUE_BYTES + 1), file)
    except OSError as error:
        raise CliError(f"{file}: {error.strerror}") from error


def _read_input(name: str) -> bytes:
    if sys.stdin.isatty():
        return _ask_for_line(name)
    data = sys.stdin.buffer.read(MAX_VALUE_BYTES + len(b"\r\n") + 1)
    newline = b"\r\n" if data.endswith(b"\r\n") else b"\n"
    return _checked(data.removesuffix(newline), "standard input")


def _ask_for_line(name: str) -> bytes:
    """Ask on the terminal, which shows nothing of what is typed."""
    try:
        line = str(click.prompt(f"value of {name}", hide_input=True, err=True)).encode()
    except UnicodeError:
        raise CliError("what was typed is not UTF-8 text") from None
    if len(line) > MAX_LINE_BYTES:
        raise CliError("a terminal takes no line as long as that: use --file or standard input")
    return line


def _checked(value: bytes, place: str) -> bytes:
    if not value:
        raise CliError(f"{place} is empty, which a secret of AWS can't be")
    if len(value) > MAX_VALUE_BYTES:
        raise CliError(f"{place} has more than 64 KiB, which a secret of AWS can't have")
    return value


def _tell_use(used: bool) -> None:
    if not used:
        click.echo(NOT_USED, err=True)


def _render_time(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
