"""`fargate login` and `fargate logout`: their options."""

import click

from fargate_agent.cli.connection import Connection
from fargate_agent.cli.options import connection_option, output_option


@click.command()
@click.argument("registry", required=False)
@click.option("-u", "--username", metavar="NAME", help="User name. Default: ask for it.")
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Take standard input as the password, without a newline at its end.",
)
@click.option("--no-verify", is_flag=True, help="Keep the login without asking the registry.")
@click.option("--list", "list_", is_flag=True, help="List registries and user names.")
@connection_option
@output_option
def login(  # noqa: PLR0913 - one argument per option
    registry: str | None,
    connection: Connection,
    output: str,
    username: str | None,
    password_stdin: bool,
    no_verify: bool,
    list_: bool,
) -> None:
    """Keep user name and password for REGISTRY, HOST or HOST:PORT; Docker Hub is docker.io.

    The agent asks the registry whether it takes them, through the network of this machine, and
    keeps them in a file that only root can read. Pulls use them before those of the agent's setting
    registry_auth_file, and after those of a task definition. The password is asked for on a
    terminal, or comes from standard input with --password-stdin.
    """
    from fargate_agent.cli.registries.logins import Login, list_logins, log_in

    as_json = output == "json"
    if list_:
        if registry is not None or username is not None or password_stdin or no_verify:
            raise click.UsageError("--list takes no registry and no other option of a login")
        list_logins(connection, as_json=as_json)
        return
    if registry is None:
        raise click.UsageError("name the registry, e.g. docker.io or registry.example:5000")
    asked = Login(
        registry=registry,
        username=username,
        password_stdin=password_stdin,
        verify=not no_verify,
    )
    log_in(connection, asked, as_json=as_json)


@click.command()
@click.argument("registry")
@connection_option
@output_option
def logout(registry: str, connection: Connection, output: str) -> None:
    """Forget the login that is kept for REGISTRY."""
    from fargate_agent.cli.registries.logins import log_out

    log_out(connection, registry, as_json=output == "json")
