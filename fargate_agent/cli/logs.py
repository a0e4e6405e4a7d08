"""`fargate logs`, and how the lines of containers are printed."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from fargate_agent.cli.agent import Agent, LogLine, LogQuery
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.ecs import Ecs, parse_task
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import print_json_line

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS: Final = ("cyan", "magenta", "blue", "yellow", "green", "red")


class LogPrinter:
    """Prints the lines of containers: stdout to stdout, stderr to stderr."""

    def __init__(self, *, with_names: bool = True, with_times: bool = False) -> None:
        """Say what stands before each line."""
        self._with_names = with_names
        self._with_times = with_times
        self._colours: dict[str, str] = {}

    def show(self, line: LogLine) -> None:
        """Print one line."""
        before = ""
        if self._with_times:
            before = line.time + " "
        if self._with_names:
            colour = self._colours.setdefault(
                line.container, _COLOURS[len(self._colours) % len(_COLOURS)]
            )
            before += click.style(f"{line.container} | ", fg=colour)
        click.echo(before + line.text, err=line.stream == "stderr")


def render_log(line: LogLine) -> dict[str, str]:
    """A line of a container as the agent sends it."""
    return {
        "container": line.container,
        "stream": line.stream,
        "time": line.time,
        "log": line.text,
    }


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
    except ValueError:
        raise CliError(
            f"--since {text}: neither an age such as 10m nor a time such as 2026-01-31T12:00:00Z"
        ) from None
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()
