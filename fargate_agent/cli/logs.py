"""`fargate logs`, and how the lines of containers are printed."""

import asyncio
import re
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from fargate_agent.cli.agent import Agent, LogLine, LogQuery
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.ecs import Ecs, parse_task
from fargate_agent.cli.failure import CliError, UnreachableError
from fargate_agent.cli.output import print_json_line, terminal_width, wants_colours

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS: Final = tuple(
    bright + colour
    for bright in ("", "bright_")
    for colour in ("cyan", "magenta", "blue", "yellow", "green", "red")
)
AWAY_S: Final = 30
"""How long the agent may be away while it is followed, as when it is started again."""
_ASK_AGAIN_S: Final = 0.5
_MIN_NAME_COLUMNS: Final = 8
_NAMES_PART: Final = 4
"""On a terminal, a name takes no more than this part of a line."""


class LogPrinter:
    """Prints the lines of containers: stdout to stdout, stderr to stderr.

    On a terminal, names have colours and stand in a column. What a container wrote is printed as it
    is: colours of its own go through a pipe too.
    """

    def __init__(self, *, with_names: bool = True, with_times: bool = False) -> None:
        """Say what stands before each line."""
        self._with_names = with_names
        self._with_times = with_times
        self._colours: dict[str, str] = {}
        self._columns = 0

    def show(self, line: LogLine) -> None:
        """Print one line."""
        err = line.stream == "stderr"
        before = f"{line.time} " if self._with_times else ""
        if self._with_names:
            terminal = (sys.stderr if err else sys.stdout).isatty()
            before += self._render_name(line.container, terminal=terminal)
        click.echo(before + line.text, err=err, color=True)

    def _render_name(self, name: str, *, terminal: bool) -> str:
        if not terminal:
            return f"{name} | "
        room = max(_MIN_NAME_COLUMNS, terminal_width() // _NAMES_PART)
        shown = name if len(name) <= room else name[: room - 1] + "…"
        self._columns = max(self._columns, len(shown))
        text = f"{shown:<{self._columns}} | "
        return click.style(text, fg=self._colour(name)) if wants_colours() else text

    def _colour(self, name: str) -> str:
        """A name has the same colour each time, unless another one got that first."""
        if name not in self._colours:
            first = zlib.crc32(name.encode()) % len(_COLOURS)
            wanted = _COLOURS[first:] + _COLOURS[:first]
            used = self._colours.values()
            self._colours[name] = next((c for c in wanted if c not in used), wanted[0])
        return self._colours[name]


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


async def read_lines(
    agent: Agent, task: str, query: LogQuery, note: Callable[[str], None]
) -> AsyncIterator[LogLine]:
    """Yield each line once, even if the agent is started again while the task is followed.

    Raises:
        CliError: the agent can't be asked, or is away for too long.
    """
    if query.follow:
        await agent.health()  # one that isn't there at first isn't waited for
    place = _Place(query)
    while True:
        try:
            async for line in agent.logs(task, place.begin()):
                if place.take(line):
                    yield line
        except UnreachableError as error:
            if not query.follow:
                raise
            note(f"{error}; trying for {AWAY_S} s more")
            await until_agent_is_back(agent)
        else:
            return


async def until_agent_is_back(agent: Agent) -> None:
    """Return as soon as the agent answers again.

    Raises:
        UnreachableError: it doesn't.
    """
    try:
        async with asyncio.timeout(AWAY_S):
            while True:
                with suppress(UnreachableError):
                    await agent.health()
                    return
                await asyncio.sleep(_ASK_AGAIN_S)
    except TimeoutError:
        raise UnreachableError(f"the agent has been away for {AWAY_S} s") from None


class _Place:
    """How far the output of a task has been read.

    A stream of a container goes forward in time, but many of its lines may have the same time.
    """

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._begun = datetime.now(UTC).isoformat()
        self._last: dict[tuple[str, str], tuple[str, int]] = {}
        """Time of the last line of each stream, and how many lines of that time were taken."""
        self._known: dict[tuple[str, str], tuple[str, int]] = {}
        """What of them comes again."""
        self._again = False

    def begin(self) -> LogQuery:
        """Return the query that brings what is new, and a little more."""
        query = self._query
        if self._last:
            since = min(time for time, _ in self._last.values())
            query = replace(query, since=since, tail=None)
        elif self._again and query.tail is not None:
            query = replace(query, since=self._begun, tail=None)
        self._known, self._again = dict(self._last), True
        return query

    def take(self, line: LogLine) -> bool:
        """Return whether a line is new."""
        stream = (line.container, line.stream)
        time, left = self._known.get(stream, ("", 0))
        if line.time < time:
            return False
        if line.time == time and left:
            self._known[stream] = (time, left - 1)
            return False
        last, count = self._last.get(stream, ("", 0))
        self._last[stream] = (line.time, count + 1 if line.time == last else 1)
        return True


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
