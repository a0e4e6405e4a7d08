"""`fargate stop`: ask for the end of a task, and wait for it if asked to."""

import time
from typing import Final

import click

from fargate_agent.cli.clients.ecs import Ecs
from fargate_agent.cli.clients.shapes import Task, task_id
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import print_json, render_status

WAIT_POLL_S: Final = 0.5


def stop_task(
    connection: Connection,
    found_by: tuple[str, str],
    *,
    reason: str | None,
    wait_s: float | None,
    as_json: bool,
) -> None:
    """Ask for a task's end; `found_by` is cluster and ARN, id or beginning of the id.

    Raises:
        CliError: the task has not stopped after `wait_s` seconds; None doesn't wait.
    """
    ecs = Ecs(connection)
    cluster, task = ecs.find_task(*found_by)
    answer = ecs.stop(cluster, task, reason)
    if wait_s is not None:
        answer = _wait_until_stopped(ecs, cluster, task, wait_s)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{task_id(answer)}: {render_status(answer.get('lastStatus', '-'))}")


def _wait_until_stopped(ecs: Ecs, cluster: str, task: str, wait_s: float) -> Task:
    deadline = time.monotonic() + wait_s
    while (answer := ecs.describe_one(cluster, task)).get("lastStatus") != "STOPPED":
        if time.monotonic() > deadline:
            status = answer.get("lastStatus")
            raise CliError(f"task {task} is still {status} after {wait_s:g} s")
        time.sleep(WAIT_POLL_S)
    return answer
