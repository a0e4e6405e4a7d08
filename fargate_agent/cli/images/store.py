"""`fargate images`: what the agent on this machine has in store."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from fargate_agent.cli.clients.agent import Agent
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import print_json, render_bytes, terminal_width
from fargate_agent.cli.tables import render_rows

T = TypeVar("T")


def load_images(connection: Connection, file: str, name: str | None, *, as_json: bool) -> None:
    """Import an archive and print the names it brought; `-` is standard input.

    `name` is that of an archive's only image, whatever the archive calls it.

    Raises:
        CliError: the file can't be read, or the agent doesn't take it.
    """
    try:
        archive = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115 - below
    except OSError as error:
        raise CliError(f"{file}: {error.strerror}") from error
    with archive:
        shown = "standard input" if file == "-" else file
        names = _ask(connection, lambda agent: agent.load(archive, shown, name))
    _show_names("loaded", names, as_json=as_json)


def list_images(connection: Connection, *, as_json: bool) -> None:
    """Print every image the agent has."""
    images = _ask(connection, Agent.images)
    if as_json:
        print_json({"images": images})
        return
    for line in render_images(images, terminal_width()):
        click.echo(line)


def render_images(images: Sequence[dict[str, Any]], width: int) -> list[str]:
    """One row per image."""
    rows = [
        (image["name"], image["digest"][:19], render_bytes(image["sizeBytes"])) for image in images
    ]
    return render_rows(("IMAGE", "DIGEST", "SIZE"), rows, width)


def remove_image(connection: Connection, name: str, *, as_json: bool) -> None:
    """Make the agent forget an image."""
    _ask(connection, lambda agent: agent.remove(name))
    _show_names("removed", [name], as_json=as_json)


def prune_images(connection: Connection, *, as_json: bool) -> None:
    """Make the agent forget every image that no task uses."""
    _show_names("removed", _ask(connection, Agent.prune), as_json=as_json)


def _show_names(what: str, names: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({what: names})
        return
    for name in names:
        click.echo(f"{what} {name}")


def _ask(connection: Connection, question: Callable[[Agent], Coroutine[Any, Any, T]]) -> T:
    async def ask() -> T:
        async with Agent(connection.agent_socket) as agent:
            return await question(agent)

    return asyncio.run(ask())
