"""`fargate run`: register a definition, start tasks of it, and follow one if asked to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from fargate_agent.cli.clients.ecs import Ecs
from fargate_agent.cli.clients.shapes import Definition, Failure, Task, TasksAnswer, task_id
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError, RefusedError
from fargate_agent.cli.output import print_json
from fargate_agent.cli.tasks.definition import parse_overrides, parse_volumes, read_definition

DEFAULT_SUBNET: Final = "subnet-default"
DEFAULT_SECURITY_GROUP: Final = "sg-default"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What was asked for on the command line."""

    file: str
    cluster: str
    subnets: Sequence[str]
    security_groups: Sequence[str]
    overrides: Sequence[str]
    volumes: Sequence[str]
    count: int
    started_by: str | None
    follow: bool
    as_json: bool


def run_file(connection: Connection, options: RunOptions) -> int:
    """Start what the file describes, and return the exit code of the command.

    Raises:
        CliError: the file, an override, a volume or the control plane says no.
    """
    definition = read_definition(options.file)
    overrides, volumes = parse_overrides(options.overrides), parse_volumes(options.volumes)
    ecs = Ecs(connection)
    try:
        arn = ecs.register(definition)
    except RefusedError as error:
        raise RefusedError(f"{options.file}: {error}") from error
    answer = ecs.run(_plan_request(arn, overrides, volumes, options))
    _refuse_failures(answer["failures"], started=answer["tasks"])
    if options.follow:
        from fargate_agent.cli.tasks.follow import follow_task

        task, essential = answer["tasks"][0], _essential_containers(definition)
        return follow_task(connection, ecs, task, essential, as_json=options.as_json)
    _show_started(answer, as_json=options.as_json)
    return 0


def _plan_request(
    arn: str, overrides: dict[str, Any], volumes: list[dict[str, Any]], options: RunOptions
) -> dict[str, Any]:
    network: dict[str, Any] = {"subnets": list(options.subnets) or [DEFAULT_SUBNET]}
    groups = list(options.security_groups)
    if not options.subnets and not groups:
        groups = [DEFAULT_SECURITY_GROUP]
    if groups:
        network["securityGroups"] = groups
    request: dict[str, Any] = {
        "cluster": options.cluster,
        "taskDefinition": arn,
        "count": options.count,
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": network},
    }
    if overrides:
        request["overrides"] = overrides
    if volumes:
        request["volumeConfigurations"] = volumes
    if options.started_by:
        request["startedBy"] = options.started_by
    return request


def _refuse_failures(failures: Sequence[Failure], started: Sequence[Task]) -> None:
    if failures or not started:
        reasons = {_explain(failure) for failure in failures}
        text = "RunTask: " + ("; ".join(sorted(reasons)) or "no task was started")
        if started:
            text += f" ({len(started)} started: {', '.join(map(task_id, started))})"
        raise CliError(text)


def _explain(failure: Failure) -> str:
    reason, detail = failure.get("reason", "no reason given"), failure.get("detail")
    return f"{reason.removesuffix('.')}. {detail}" if detail else reason


def _show_started(answer: TasksAnswer, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    for task in answer["tasks"]:
        click.echo(task["taskArn"])


def _essential_containers(definition: Definition) -> tuple[str, ...]:
    return tuple(
        container["name"]
        for container in definition["containerDefinitions"]
        if container.get("essential", True)
    )
