"""`fargate images`: its commands and their options."""

import click

from fargate_agent.cli.connection import Connection
from fargate_agent.cli.options import connection_option, output_option


@click.group()
def images() -> None:
    """Load, list and remove images on this machine."""


@images.command()
@click.argument("file")
@click.option("--name", help="Name of the image, for an archive of one image.")
@connection_option
@output_option
def load(file: str, name: str | None, connection: Connection, output: str) -> None:
    """Import FILE, an OCI or Docker archive; - is standard input.

    It may be packed by gzip, bzip2, xz or zstd.
    """
    from fargate_agent.cli.images.store import load_images

    load_images(connection, file, name, as_json=output == "json")


@images.command("ls")
@connection_option
@output_option
def list_(connection: Connection, output: str) -> None:
    """List images.

    SIZE is the size of what came, with layers compressed as in a registry; UNPACKED is the size of
    the layers as containers see them. Images may share layers.
    """
    from fargate_agent.cli.images.store import list_images

    list_images(connection, as_json=output == "json")


@images.command("rm")
@click.argument("name")
@connection_option
@output_option
def remove(name: str, connection: Connection, output: str) -> None:
    """Remove image NAME, also if a task uses it. Containers that run keep their files."""
    from fargate_agent.cli.images.store import remove_image

    remove_image(connection, name, as_json=output == "json")


@images.command()
@click.option("--dry-run", is_flag=True, help="Only say which images would be removed.")
@connection_option
@output_option
def prune(dry_run: bool, connection: Connection, output: str) -> None:
    """Remove every image that no task uses.

    Those that were loaded from a file, and those of the setting image_cleanup_exclude, too.
    """
    from fargate_agent.cli.images.store import prune_images

    prune_images(connection, dry_run=dry_run, as_json=output == "json")
