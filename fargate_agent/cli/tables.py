"""Lists for people. Where a row doesn't fit the terminal it becomes a few short lines."""

from collections.abc import Sequence
from typing import Final

from fargate_agent.cli.output import render_status

_GAP: Final = "  "


def render_rows(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """Lines of a list: the header and a line for each row, or a few short lines for each."""
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
    return render_status(cell) if title in ("STATUS", "HEALTH") and cell != title else cell
