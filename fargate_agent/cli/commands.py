"""Every command of `fargate`: its words and options. What they do is imported when it is done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from fargate_agent import __version__
from fargate_agent.cli.connection import DEFAULT_STATE_DIR, Connection
from fargate_agent.cli.keys import keys

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_STOP_WAIT_S: Final = 180
"""More than the longest stop timeout, 120 s. Source: ECS API reference, `stopTimeout`."""

OVERRIDE_GRAMMAR: Final = """\b
An override is one of
  CONTAINER.command=["sh", "-c", "env"]  a JSON list
  CONTAINER.environment.KEY=VALUE        one variable
  CONTAINER.FIELD=NUMBER                 cpu, memory, memoryReservation
  FIELD=VALUE                            of the task: cpu, memory,
                                         taskRoleArn, executionRoleArn
  @FILE or {...}                         RunTask's overrides as JSON
and a later one wins over an earlier one.
"""

_output = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="text for people, json for programs.",
)
_cluster = click.option("--cluster", default="default", show_default=True, help="The cluster.")


def _find_connection(_: click.Context, __: click.Parameter, state_dir: Path | None) -> Connection:
    from fargate_agent.cli.connection import read_connection

    return read_connection(state_dir)


_connection = click.option(
    "--state-dir",
    "connection",
    type=click.Path(path_type=Path),
    callback=_find_connection,
    metavar="DIR",
    help="Speak to the stack that `fargate up --state-dir DIR` runs. Otherwise"
    " AWS_ENDPOINT_URL_ECS and FARGATE_AGENT_SOCKET say where to, then the stack in"
    f" {DEFAULT_STATE_DIR}, then the services of this machine.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fargate")
def fargate() -> None:
    """Run AWS Fargate tasks on this machine."""


@fargate.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=DEFAULT_STATE_DIR,
    show_default=True,
    metavar="DIR",
    help="Everything that is kept lies below it.",
)
@click.option(
    "--containerd",
    type=click.Path(path_type=Path),
    metavar="SOCKET",
    help="Use this containerd. Without it one is started for the stack alone.",
)
@click.option(
    "--listen",
    envvar="FARGATE_CONTROL_PLANE_LISTEN",
    metavar="URL",
    help="Where the ECS API listens. Without it http://127.0.0.1:51680, or another port if that"
    " one is in use.",
)
@click.option(
    "--vpc-cidr",
    envvar="FARGATE_CONTROL_PLANE_VPC_CIDR",
    metavar="CIDR",
    help="Range of the default VPC. Without it 10.0.0.0/16, or another range if the host knows"
    " that one.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the logs of the programs too.")
@_output
@click.pass_context
def up(context: click.Context, /, output: str, **options: Any) -> None:  # noqa: ANN401 - from click
    """Run control plane, agent and containerd in the foreground, until Ctrl-C.

    Prints a line that begins with "ready" once tasks can be run. Ctrl-C stops all tasks and leaves
    nothing but DIR; a second one doesn't wait for them.
    """
    from fargate_agent.cli.up import UpOptions, run_stack

    context.exit(run_stack(UpOptions(**options, as_json=output == "json")))


@fargate.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Of the stack that `fargate up --state-dir DIR` runs. Otherwise the stack that"
    f" FARGATE_AGENT_SOCKET leads to, then the one in {DEFAULT_STATE_DIR}, then the services of"
    " this machine.",
)
@_output
def env(state_dir: Path | None, output: str) -> None:
    """Print the variables that lead AWS clients to the stack.

    eval "$(fargate env)" makes the AWS CLI and boto3 work.
    """
    from fargate_agent.cli.connection import read_env, render_env
    from fargate_agent.cli.output import print_json

    values = read_env(state_dir)
    if output == "json":
        print_json(values)
    else:
        click.echo(render_env(values), nl=False)


@fargate.command(epilog=OVERRIDE_GRAMMAR)
@click.argument("file")
@click.option("-f", "--follow", is_flag=True, help="Show the task until it stops; exit as it does.")
@_cluster
@click.option("--subnet", "subnets", multiple=True, metavar="ID", help="Default: subnet-default.")
@click.option(
    "--security-group",
    "security_groups",
    multiple=True,
    metavar="ID",
    help="Default: sg-default, if no subnet is named either.",
)
@click.option(
    "--override", "overrides", multiple=True, metavar="TEXT", help="See below; may be repeated."
)
@click.option("--count", type=click.IntRange(1, 10), default=1, help="How many tasks; 1 to 10.")
@click.option("--started-by", metavar="TEXT", help="Who starts it; shown by describe.")
@_connection
@_output
@click.pass_context
def run(context: click.Context, /, output: str, connection: Connection, **options: Any) -> None:  # noqa: ANN401 - from click
    """Register the task definition in FILE and run a task of it.

    FILE is JSON as `aws ecs register-task-definition --cli-input-json` takes it, or as
    `describe-task-definition` prints it; - is standard input.

    With --follow the exit code is that of the essential container. Ctrl-C then asks for the task's
    end; a second Ctrl-C doesn't wait for it.
    """
    from fargate_agent.cli.run import RunOptions, run_file

    if options["follow"] and options["count"] > 1:
        raise click.UsageError("--follow follows one task: leave --count out")
    context.exit(run_file(connection, RunOptions(**options, as_json=output == "json")))


@fargate.command()
@click.option(
    "-a",
    "--all",
    "stopped_too",
    is_flag=True,
    help="Stopped tasks too, with the exit codes of containers.",
)
@_cluster
@_connection
@_output
def ps(stopped_too: bool, cluster: str, connection: Connection, output: str) -> None:
    """List tasks."""
    from fargate_agent.cli.tasks import list_tasks

    list_tasks(connection, cluster, stopped_too=stopped_too, as_json=output == "json")


@fargate.command()
@click.argument("task")
@_cluster
@_connection
@_output
def describe(task: str, cluster: str, connection: Connection, output: str) -> None:
    """Tell everything about TASK: an ARN, an id, or the beginning of an id."""
    from fargate_agent.cli.tasks import describe_task

    describe_task(connection, cluster, task, as_json=output == "json")


@fargate.command()
@click.argument("task")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has stopped.")
@click.option(
    "--container",
    "containers",
    multiple=True,
    metavar="NAME",
    help="Only this container; may be given several times.",
)
@click.option("--since", metavar="WHEN", help="An age such as 10m, 2h, 1d, or a time (RFC 3339).")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with its time.")
@_cluster
@_connection
@_output
def logs(  # noqa: PLR0913 - one argument per option
    task: str,
    cluster: str,
    connection: Connection,
    output: str,
    timestamps: bool,
    follow: bool,
    containers: tuple[str, ...],
    since: str | None,
    tail: int | None,
) -> None:
    """Print what TASK's containers wrote; TASK is an ARN, an id, or the beginning of an id."""
    from fargate_agent.cli.agent import LogQuery
    from fargate_agent.cli.logs import show_logs

    query = LogQuery(containers=containers, follow=follow, tail=tail, since=since)
    as_json = output == "json"
    show_logs(connection, (cluster, task), query, with_times=timestamps, as_json=as_json)


@fargate.command()
@click.argument("task")
@click.option("--reason", metavar="TEXT", help="Shown by describe.")
@click.option("--wait", is_flag=True, help="Return when it has stopped.")
@_cluster
@_connection
@_output
def stop(
    task: str, cluster: str, connection: Connection, output: str, reason: str | None, wait: bool
) -> None:
    """Stop TASK: an ARN, an id, or the beginning of an id."""
    from fargate_agent.cli.tasks import stop_task

    wait_s = DEFAULT_STOP_WAIT_S if wait else None
    as_json = output == "json"
    stop_task(connection, (cluster, task), reason=reason, wait_s=wait_s, as_json=as_json)


@fargate.command()
@click.argument("task")
@_cluster
@_connection
@_output
def why(task: str, cluster: str, connection: Connection, output: str) -> None:
    """Explain why TASK is as it is, even if it was forgotten meanwhile.

    TASK is an ARN, an id, or the beginning of an id.
    """
    from fargate_agent.cli.why import show_why

    show_why(connection, cluster, task, as_json=output == "json")


@fargate.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C; without --since from now.")
@click.option("--since", metavar="WHEN", help="An age such as 10m, 2h, 1d, or a time (RFC 3339).")
@click.option("--task", metavar="ID", help="Only this task: an ARN, an id, or its beginning.")
@click.option("--cluster", metavar="NAME", help="Only this cluster.")
@_connection
@_output
def events(
    connection: Connection,
    output: str,
    follow: bool,
    since: str | None,
    task: str | None,
    cluster: str | None,
) -> None:
    """Print what has happened to tasks; as json, in EventBridge's shape."""
    from fargate_agent.cli.events import plan_query, show_events

    query = plan_query(task, since, cluster=cluster, follow=follow)
    show_events(connection, query, as_json=output == "json")


@fargate.group()
def images() -> None:
    """Load, list and remove images on this machine."""


@images.command()
@click.argument("file")
@click.option("--name", help="Name of the image, for an archive of one image.")
@_connection
@_output
def load(file: str, name: str | None, connection: Connection, output: str) -> None:
    """Import FILE, an OCI or Docker archive; - is standard input.

    It may be packed by gzip, bzip2, xz or zstd.
    """
    from fargate_agent.cli.images import load_images

    load_images(connection, file, name, as_json=output == "json")


@images.command("ls")
@_connection
@_output
def list_(connection: Connection, output: str) -> None:
    """List images."""
    from fargate_agent.cli.images import list_images

    list_images(connection, as_json=output == "json")


@images.command("rm")
@click.argument("name")
@_connection
@_output
def remove(name: str, connection: Connection, output: str) -> None:
    """Remove image NAME."""
    from fargate_agent.cli.images import remove_image

    remove_image(connection, name, as_json=output == "json")


@images.command()
@_connection
@_output
def prune(connection: Connection, output: str) -> None:
    """Remove every image that no task uses."""
    from fargate_agent.cli.images import prune_images

    prune_images(connection, as_json=output == "json")


@fargate.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The stack of `fargate up --state-dir DIR`, whether it runs or not. Otherwise as with the"
    " other commands.",
)
@_output
@click.pass_context
def doctor(context: click.Context, state_dir: Path | None, output: str) -> None:
    """Say what doesn't work, and what this machine denies to tasks, whether an agent runs or not.

    Exits with 1 if the control plane or the agent doesn't do its work.
    """
    from fargate_agent.cli.doctor import examine

    context.exit(examine(state_dir, as_json=output == "json"))


fargate.add_command(keys)
