"""`fargate ps`, `describe`, `logs` and `stop`."""

import asyncio
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from fargate_agent.cli.agent import Agent, LogQuery
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.describe import render_task
from fargate_agent.cli.ecs import Ecs, parse_task
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import print_json, print_json_line, render_status, terminal_width
from fargate_agent.cli.screen import LogPrinter, render_log
from fargate_agent.cli.shapes import Task, task_id
from fargate_agent.cli.tables import render_tasks

WAIT_POLL_S: Final = 0.5
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def list_tasks(connection: Connection, cluster: str, *, stopped_too: bool, as_json: bool) -> None:
    """Print the tasks of a cluster."""
    ecs = Ecs(connection)
    statuses = ("RUNNING", "STOPPED") if stopped_too else ("RUNNING",)
    tasks = ecs.describe(cluster, ecs.list_tasks(cluster, statuses))
    if as_json:
        print_json({"tasks": tasks})
        return
    for line in render_tasks(tasks, terminal_width(), datetime.now(UTC)):
        click.echo(line)


def describe_task(connection: Connection, cluster: str, text: str, *, as_json: bool) -> None:
    """Print everything about one task."""
    ecs = Ecs(connection)
    task = ecs.describe_one(*ecs.find_task(cluster, text))
    if as_json:
        print_json(task)
        return
    for line in render_task(task, terminal_width(), datetime.now(UTC)):
        click.echo(line)


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


def show_logs(
    connection: Connection,
    found_by: tuple[str, str],
    query: LogQuery,
    *,
    with_times: bool,
    as_json: bool,
) -> None:
    """Print what the containers of a task wrote.

    Raises:
        CliError: `since` is no time, or nobody knows the task.
    """
    query = replace(query, since=parse_since(query.since, datetime.now(UTC)))
    known = parse_task(*found_by)
    _, task = known if known is not None else Ecs(connection).find_task(*found_by)
    printer = LogPrinter(with_names=query.container is None, with_times=with_times)

    async def show() -> None:
        async with Agent(connection.agent_socket) as agent:
            async for line in agent.logs(task, query):
                if as_json:
                    print_json_line(render_log(line))
                else:
                    printer.show(line)

    asyncio.run(show())


def parse_since(text: str | None, now: datetime) -> str | None:
    """A point in time as RFC 3339, from RFC 3339 or an age such as `90s`, `10m`, `2h`, `1d`.

    Raises:
        CliError: it is neither.

    Example:
        >>> parse_since("10m", datetime(2026, 1, 1, 12, 0, tzinfo=UTC))
        '2026-01-01T11:50:00+00:00'
    """
    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,9})([smhd])", text):
        age = timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
        return max(now - age, datetime.fromtimestamp(0, UTC)).isoformat()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CliError(f"--since {text}: neither an age such as 10m nor a time: {error}") from error
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()


def _wait_until_stopped(ecs: Ecs, cluster: str, task: str, wait_s: float) -> Task:
    deadline = time.monotonic() + wait_s
    while (answer := ecs.describe_one(cluster, task)).get("lastStatus") != "STOPPED":
        if time.monotonic() > deadline:
            status = answer.get("lastStatus")
            raise CliError(f"task {task} is still {status} after {wait_s:g} s")
        time.sleep(WAIT_POLL_S)
    return answer
