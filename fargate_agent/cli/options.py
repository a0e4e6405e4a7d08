"""Options that several commands have."""

from pathlib import Path

import click

from fargate_agent.cli.connection import DEFAULT_STATE_DIR, Connection, read_connection

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="text for people, json for programs.",
)
cluster_option = click.option(
    "--cluster", default="default", show_default=True, help="The cluster."
)


def _find_connection(_: click.Context, __: click.Parameter, state_dir: Path | None) -> Connection:
    return read_connection(state_dir)


connection_option = click.option(
    "--state-dir",
    "connection",
    type=click.Path(path_type=Path),
    callback=_find_connection,
    metavar="DIR",
    help="Speak to the stack that `fargate up --state-dir DIR` runs. Otherwise"
    " AWS_ENDPOINT_URL_ECS and FARGATE_AGENT_SOCKET say where to, then the stack in"
    f" {DEFAULT_STATE_DIR}, then the services of this machine.",
)
