"""What goes to the screen: JSON for programs, text of the screen's width for people."""

import json
import os
import shutil
import textwrap
from datetime import UTC, datetime
from typing import Final

import click

NO_LIMIT: Final = 1 << 16
"""Width of what is not a terminal: a pipe gets whole lines."""
MIN_WIDTH: Final = 28
"""Text isn't wrapped to less."""
SHORT_ID_CHARS: Final = 12
"""How much of a task's id lists show."""
_LABEL_CHARS: Final = 13
_STATUS_COLOURS: Final = {
    "RUNNING": "green",
    "STOPPED": "bright_black",
    "HEALTHY": "green",
    "UNHEALTHY": "red",
    "UNKNOWN": "bright_black",
    "Active": "green",
    "Inactive": "bright_black",
}


def wants_colours() -> bool:
    """Whether a terminal may get colours. Source: no-color.org; terminfo(5), `dumb`."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int:
    """Columns of the terminal, or `COLUMNS` where it is set."""
    return shutil.get_terminal_size((NO_LIMIT, 1)).columns


def print_json(document: object) -> None:
    """Print one JSON document; times as RFC 3339."""
    click.echo(json.dumps(document, indent=2, default=_render_time))


def print_json_line(document: object) -> None:
    """Print one JSON document of a stream on one line."""
    click.echo(json.dumps(document, default=_render_time))


def render_pair(label: str, text: str, width: int) -> list[str]:
    """`label  text`, the text wrapped between words and hung below itself.

    Only its first word may be coloured: a colour has characters, and no width.
    """
    if not (words := text.split()):
        return []
    head, first = label.ljust(_LABEL_CHARS) + " ", words[0]
    lines = textwrap.wrap(
        click.unstyle(" ".join(words)),
        width=max(width, MIN_WIDTH),
        initial_indent=head,
        subsequent_indent=" " * (_LABEL_CHARS + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines[0] = head + first + lines[0][len(head) + len(click.unstyle(first)) :]
    return lines


def one_line(text: str) -> str:
    """Text that somebody else wrote, which must not change the screen."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def render_status(status: str) -> str:
    """Colour a status; `click.echo` drops the colour where it isn't a terminal."""
    return click.style(status, fg=_STATUS_COLOURS.get(status, "yellow"))


def render_age(moment: datetime | None, now: datetime) -> str:
    """How long ago that was, roughly; `-` if it hasn't been.

    Example:
        >>> render_age(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 2, tzinfo=UTC))
        '2m ago'
    """
    if moment is None:
        return "-"
    seconds = max(0, int((now - moment).total_seconds()))
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit_s:
            return f"{seconds // unit_s}{unit} ago"
    return f"{seconds}s ago"


def render_moment(moment: datetime, now: datetime) -> str:
    """A point in time, and how long ago it was."""
    text = moment.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds")
    return f"{text.replace('+00:00', 'Z')} ({render_age(moment, now)})"


def render_bytes(count: float) -> str:
    """A number of bytes for people, in powers of 1024.

    Example:
        >>> render_bytes(3 * 1024 * 1024)
        '3.0 MiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _render_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")
