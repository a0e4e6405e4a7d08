"""`fargate logs`: print what the containers of a task wrote."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import click

from fargate_agent.cli.clients.agent import Agent, LogQuery
from fargate_agent.cli.clients.ecs import Ecs, parse_task
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.logs.printer import LogPrinter, render_log
from fargate_agent.cli.logs.reader import read_lines
from fargate_agent.cli.output import print_json_line
from fargate_agent.cli.since import parse_since


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
    printer = LogPrinter(with_names=len(query.containers) != 1, with_times=with_times)

    def note(text: str) -> None:
        click.echo(text, err=True)

    async def show() -> None:
        async with Agent(connection.agent_socket) as agent:
            async for line in read_lines(agent, task, query, note):
                if as_json:
                    print_json_line(render_log(line))
                else:
                    printer.show(line)

    asyncio.run(show())
