"""How the lines of containers are printed."""

import sys
import zlib
from typing import Final

import click

from fargate_agent.cli.clients.agent import LogLine
from fargate_agent.cli.output import terminal_width, wants_colours

_COLOURS: Final = tuple(
    bright + colour
    for bright in ("", "bright_")
    for colour in ("cyan", "magenta", "blue", "yellow", "green", "red")
)
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
