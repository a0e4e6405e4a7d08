"""`fargate ps`: the tasks of a cluster."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from fargate_agent.cli.clients.ecs import Ecs
from fargate_agent.cli.clients.shapes import Task, addresses, definition_name, task_id
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.output import SHORT_ID_CHARS, print_json, render_age, terminal_width
from fargate_agent.cli.tables import render_rows


def list_tasks(connection: Connection, cluster: str, *, stopped_too: bool, as_json: bool) -> None:
    """Print the tasks of a cluster."""
    ecs = Ecs(connection)
    statuses = ("RUNNING", "STOPPED") if stopped_too else ("RUNNING",)
    tasks = ecs.describe(cluster, ecs.list_tasks(cluster, statuses))
    if as_json:
        print_json({"tasks": tasks})
        return
    now = datetime.now(UTC)
    for line in render_tasks(tasks, terminal_width(), now, with_exits=stopped_too):
        click.echo(line)


def render_tasks(
    tasks: Sequence[Task], width: int, now: datetime, *, with_exits: bool = False
) -> list[str]:
    """One row per task, the youngest first; if asked for with the exit code of each container.

    How healthy tasks are is shown where that is known of one.
    """
    newest_first = sorted(tasks, key=_created_at, reverse=True)
    header: tuple[str, ...] = (
        "TASK",
        "DEFINITION",
        "STATUS",
        "HEALTH",
        "EXIT",
        "ADDRESS",
        "STARTED",
        "CONTAINERS",
    )
    rows: list[tuple[str, ...]] = [
        (
            task_id(task)[:SHORT_ID_CHARS],
            definition_name(task),
            task.get("lastStatus", "-"),
            task.get("healthStatus", "UNKNOWN"),
            ",".join(str(c.get("exitCode", "-")) for c in task.get("containers", [])),
            next(iter(addresses(task)), "-"),
            render_age(task.get("startedAt"), now),
            ",".join(container["name"] for container in task.get("containers", [])),
        )
        for task in newest_first
    ]
    with_health = any(task.get("healthStatus", "UNKNOWN") != "UNKNOWN" for task in tasks)
    for title, is_shown in (("HEALTH", with_health), ("EXIT", with_exits)):
        if not is_shown:
            header, *rows = _without(header.index(title), [header, *rows])
    return render_rows(header, rows, width)


def _without(position: int, rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [row[:position] + row[position + 1 :] for row in rows]


def _created_at(task: Task) -> float:
    moment = task.get("createdAt")
    return moment.timestamp() if moment else 0
