"""The commands of `fargate`: their words and options. What they do is imported when it is done.

Groups of commands, `fargate images` and `fargate keys`, have theirs in a module of their own.
"""

from pathlib import Path
from typing import Any, Final

import click

from fargate_agent import __version__
from fargate_agent.cli.connection import DEFAULT_STATE_DIR, Connection
from fargate_agent.cli.images.commands import images
from fargate_agent.cli.keys.commands import keys
from fargate_agent.cli.options import cluster_option, connection_option, output_option
from fargate_agent.cli.registries.commands import login, logout
from fargate_agent.cli.secrets.commands import secrets

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
@click.option(
    "--host-port",
    "host_ports",
    multiple=True,
    metavar="PORT",
    help="Let tasks reach this port of the machine: 5432, 53/udp, 8000-8100. May be repeated.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the logs of the programs too.")
@output_option
@click.pass_context
def up(context: click.Context, /, output: str, **options: Any) -> None:  # noqa: ANN401 - from click
    """Run control plane, agent and containerd in the foreground, until Ctrl-C.

    Prints a line that begins with "ready" once tasks can be run. Ctrl-C stops all tasks and leaves
    nothing but DIR; a second one doesn't wait for them.
    """
    from fargate_agent.cli.stack.up import UpOptions, run_stack

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
@output_option
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
@cluster_option
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
@click.option(
    "--volume",
    "volumes",
    multiple=True,
    metavar="JSON|@FILE",
    help="Configure a volume at launch: one of RunTask's volumeConfigurations; may be repeated.",
)
@click.option("--count", type=click.IntRange(1, 10), default=1, help="How many tasks; 1 to 10.")
@click.option("--started-by", metavar="TEXT", help="Who starts it; shown by describe.")
@connection_option
@output_option
@click.pass_context
def run(context: click.Context, /, output: str, connection: Connection, **options: Any) -> None:  # noqa: ANN401 - from click
    """Register the task definition in FILE and run a task of it.

    FILE is JSON as `aws ecs register-task-definition --cli-input-json` takes it, or as
    `describe-task-definition` prints it; - is standard input.

    With --follow the exit code is that of the essential container. Ctrl-C then asks for the task's
    end; a second Ctrl-C doesn't wait for it.
    """
    from fargate_agent.cli.tasks.run import RunOptions, run_file

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
@cluster_option
@connection_option
@output_option
def ps(stopped_too: bool, cluster: str, connection: Connection, output: str) -> None:
    """List tasks."""
    from fargate_agent.cli.tasks.ps import list_tasks

    list_tasks(connection, cluster, stopped_too=stopped_too, as_json=output == "json")


@fargate.command()
@click.argument("task")
@cluster_option
@connection_option
@output_option
def describe(task: str, cluster: str, connection: Connection, output: str) -> None:
    """Tell everything about TASK: an ARN, an id, or the beginning of an id."""
    from fargate_agent.cli.tasks.describe import describe_task

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
@cluster_option
@connection_option
@output_option
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
    from fargate_agent.cli.clients.agent import LogQuery
    from fargate_agent.cli.logs.show import show_logs

    query = LogQuery(containers=containers, follow=follow, tail=tail, since=since)
    as_json = output == "json"
    show_logs(connection, (cluster, task), query, with_times=timestamps, as_json=as_json)


@fargate.command()
@click.argument("task")
@click.option("--reason", metavar="TEXT", help="Shown by describe.")
@click.option("--wait", is_flag=True, help="Return when it has stopped.")
@cluster_option
@connection_option
@output_option
def stop(
    task: str, cluster: str, connection: Connection, output: str, reason: str | None, wait: bool
) -> None:
    """Stop TASK: an ARN, an id, or the beginning of an id."""
    from fargate_agent.cli.tasks.stop import stop_task

    wait_s = DEFAULT_STOP_WAIT_S if wait else None
    as_json = output == "json"
    stop_task(connection, (cluster, task), reason=reason, wait_s=wait_s, as_json=as_json)


@fargate.command()
@click.argument("task")
@cluster_option
@connection_option
@output_option
def why(task: str, cluster: str, connection: Connection, output: str) -> None:
    """Explain why TASK is as it is, even if it was forgotten meanwhile.

    TASK is an ARN, an id, or the beginning of an id.
    """
    from fargate_agent.cli.why.show import show_why

    show_why(connection, cluster, task, as_json=output == "json")


@fargate.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C; without --since from now.")
@click.option("--since", metavar="WHEN", help="An age such as 10m, 2h, 1d, or a time (RFC 3339).")
@click.option("--task", metavar="ID", help="Only this task: an ARN, an id, or its beginning.")
@click.option("--cluster", metavar="NAME", help="Only this cluster.")
@connection_option
@output_option
def events(
    connection: Connection,
    output: str,
    follow: bool,
    since: str | None,
    task: str | None,
    cluster: str | None,
) -> None:
    """Print what has happened to tasks; as json, in EventBridge's shape."""
    from fargate_agent.cli.events.show import plan_query, show_events

    query = plan_query(task, since, cluster=cluster, follow=follow)
    show_events(connection, query, as_json=output == "json")


@fargate.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The stack of `fargate up --state-dir DIR`, whether it runs or not. Otherwise as with the"
    " other commands.",
)
@output_option
@click.pass_context
def doctor(context: click.Context, state_dir: Path | None, output: str) -> None:
    """Say what doesn't work, and what this machine denies to tasks, whether an agent runs or not.

    Exits with 1 if the control plane or the agent doesn't do its work.
    """
    from fargate_agent.cli.doctor.examine import examine

    context.exit(examine(state_dir, as_json=output == "json"))


fargate.add_command(images)
fargate.add_command(keys)
fargate.add_command(login)
fargate.add_command(logout)
fargate.add_command(secrets)
