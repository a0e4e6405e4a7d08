"""Lists for people. Where a row doesn't fit the terminal it becomes a few short lines."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from fargate_agent.cli.output import render_age, render_bytes, render_status
from fargate_agent.cli.shapes import Task, addresses, definition_name, task_id

SHORT_ID_CHARS: Final = 12
_GAP: Final = "  "


def render_tasks(
    tasks: Sequence[Task], width: int, now: datetime, *, with_exits: bool = False
) -> list[str]:
    """One row per task, the youngest first; if asked for with the exit code of each container."""
    newest_first = sorted(tasks, key=_created_at, reverse=True)
    header: tuple[str, ...] = (
        "TASK",
        "DEFINITION",
        "STATUS",
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
            ",".join(str(c.get("exitCode", "-")) for c in task.get("containers", [])),
            next(iter(addresses(task)), "-"),
            render_age(task.get("startedAt"), now),
            ",".join(container["name"] for container in task.get("containers", [])),
        )
        for task in newest_first
    ]
    if not with_exits:
        position = header.index("EXIT")
        header, *rows = (row[:position] + row[position + 1 :] for row in (header, *rows))
    return _render_rows(header, rows, width)


def render_images(images: Sequence[dict[str, Any]], width: int) -> list[str]:
    """One row per image."""
    rows = [
        (image["name"], image["digest"][:19], render_bytes(image["sizeBytes"])) for image in images
    ]
    return _render_rows(("IMAGE", "DIGEST", "SIZE"), rows, width)


def render_keys(keys: Sequence[dict[str, str | None]], width: int) -> list[str]:
    """One row per access key, with the members of its first one as header."""
    rows = [tuple(value or "-" for value in key.values()) for key in keys]
    return _render_rows(tuple(name.upper() for name in keys[0]), rows, width)


def _created_at(task: Task) -> float:
    moment = task.get("createdAt")
    return moment.timestamp() if moment else 0


def _render_rows(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    sizes = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if sum(sizes) + len(_GAP) * (len(sizes) - 1) <= width:
        return [_render_row(header, row, sizes) for row in (header, *rows)]
    return [line for row in rows for line in _wrap_row(header, row, width)]


def _render_row(header: tuple[str, ...], row: tuple[str, ...], sizes: Sequence[int]) -> str:
    cells = [
        _colour(title, cell) + " " * (size - len(cell))
        for title, cell, size in zip(header, row, sizes, strict=True)
    ]
    return _GAP.join(cells).rstrip()


def _wrap_row(header: tuple[str, ...], row: tuple[str, ...], width: int) -> list[str]:
    """The first cell on a line of its own, the others below it, as many to a line as fit."""
    lines, used = [row[0], ""], 0
    for title, cell in zip(header[1:], row[1:], strict=True):
        size = len(_GAP) + len(title) + 1 + len(cell)
        if used and used + size > width:
            lines.append("")
            used = 0
        lines[-1] += f"{_GAP}{title.lower()} {_colour(title, cell)}"
        used += size
    return lines


def _colour(title: str, cell: str) -> str:
    return render_status(cell) if title == "STATUS" and cell != title else cell
