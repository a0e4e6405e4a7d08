"""`fargate secrets`: its commands and their options."""

import click

from fargate_agent.cli.connection import Connection
from fargate_agent.cli.options import connection_option, output_option


@click.group()
def secrets() -> None:
    """Keep values for tasks on a machine that does without AWS.

    They stand for those of Secrets Manager and of Systems Manager's Parameter Store that task
    definitions refer to. The agent keeps them encrypted.
    """


@secrets.command("set")
@click.argument("name")
@click.option(
    "--file",
    metavar="FILE",
    help="Take all of FILE as the value; - is standard input.",
)
@connection_option
@output_option
def set_(name: str, file: str | None, connection: Connection, output: str) -> None:
    """Set the value of secret NAME.

    NAME is that of a secret or of a parameter, e.g. prod/db or /prod/db, or a whole ARN. The value
    comes from standard input, without a newline at its end, or is asked for on a terminal, which
    takes one line. A JSON object has the keys that definitions name.
    """
    from fargate_agent.cli.secrets.values import set_secret

    set_secret(connection, name, file, as_json=output == "json")


@secrets.command("ls")
@connection_option
@output_option
def list_(connection: Connection, output: str) -> None:
    """List names and dates, and no values."""
    from fargate_agent.cli.secrets.values import list_secrets

    list_secrets(connection, as_json=output == "json")


@secrets.command("rm")
@click.argument("name")
@connection_option
@output_option
def remove(name: str, connection: Connection, output: str) -> None:
    """Remove secret NAME."""
    from fargate_agent.cli.secrets.values import remove_secret

    remove_secret(connection, name, as_json=output == "json")
