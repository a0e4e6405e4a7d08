"""The lines of a task's containers, each once, even if the agent is started again meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from fargate_agent.cli.clients.agent import Agent, LogLine, LogQuery
from fargate_agent.cli.failure import UnreachableError

AWAY_S: Final = 30
"""How long the agent may be away while it is followed, as when it is started again."""
_ASK_AGAIN_S: Final = 0.5


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
