"""`fargate images`: what the agent on this machine has in store."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from fargate_agent.cli.clients.agent import Agent, ask_agent
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import (
    SHORT_ID_CHARS,
    print_json,
    render_age,
    render_bytes,
    terminal_width,
)
from fargate_agent.cli.tables import render_rows

T = TypeVar("T")

_HEADER: Final = ("IMAGE", "DIGEST", "SIZE", "UNPACKED", "LAST USED", "IN USE BY")


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
        names = ask_agent(connection.agent_socket, lambda agent: agent.load(archive, shown, name))
    _show_names("loaded", names, as_json=as_json)


def list_images(connection: Connection, *, as_json: bool) -> None:
    """Print every image the agent has."""
    images = ask_agent(connection.agent_socket, Agent.images)
    if as_json:
        print_json({"images": images})
        return
    for line in render_images(images, terminal_width(), datetime.now(UTC)):
        click.echo(line)


def render_images(images: Sequence[dict[str, Any]], width: int, now: datetime) -> list[str]:
    """One row per image; `-` stands for what an agent of before doesn't say."""
    return render_rows(_HEADER, [_render_row(image, now) for image in images], width)


def _render_row(image: dict[str, Any], now: datetime) -> tuple[str, ...]:
    unpacked, used_at = image.get("unpackedBytes"), image.get("lastUsedAt")
    return (
        image["name"],
        image["digest"][:19],
        render_bytes(image["sizeBytes"]),
        render_bytes(unpacked) if unpacked else "-",
        render_age(datetime.fromisoformat(used_at) if used_at else None, now),
        _render_users(image.get("usedBy", [])),
    )


def _render_users(users: Sequence[dict[str, Any]]) -> str:
    """Name the first task, and how many others there are; all are in the JSON."""
    if not users:
        return "-"
    first, others = users[0], len(users) - 1
    task = first["taskArn"].rpartition("/")[2][:SHORT_ID_CHARS]
    return f"{task} ({first['family']}:{first['revision']})" + (f" +{others}" if others else "")


def remove_image(connection: Connection, name: str, *, as_json: bool) -> None:
    """Make the agent forget an image."""
    ask_agent(connection.agent_socket, lambda agent: agent.remove(name))
    _show_names("removed", [name], as_json=as_json)


def prune_images(connection: Connection, *, dry_run: bool, as_json: bool) -> None:
    """Make the agent forget every image that no task uses, or only tell which these are.

    Raises:
        CliError: the agent doesn't answer.
    """
    names, freed_bytes = ask_agent(
        connection.agent_socket, Agent.unused_images if dry_run else Agent.prune
    )
    if as_json:
        what = "wouldRemove" if dry_run else "removed"
        print_json({what: names, "freedBytes": freed_bytes})
        return
    for name in names:
        click.echo(f"{'would remove' if dry_run else 'removed'} {name}")
    click.echo(f"{'would free' if dry_run else 'freed'} {render_bytes(freed_bytes)}")


def _show_names(what: str, names: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({what: names})
        return
    for name in names:
        click.echo(f"{what} {name}")
