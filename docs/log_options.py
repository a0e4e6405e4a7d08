"""Writes what follows from `fargate_agent/wire/log_options.py`: `python -m docs.log_options`.

These are the tables of logging.md, and the module of the loggers that has the names of their flags:
loggers run without the package.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from docs.settings_tables import put_table
from fargate_agent.wire.log_options import (
    COMMON_NAMES,
    COMMON_OPTIONS,
    DESTINATIONS,
    DRIVER_OPTIONS,
    LOGGER_FLAGS,
    LogOption,
)

PAGE: Final = Path(__file__).with_name("logging.md")
FLAGS: Final = PAGE.parents[1] / "shim-loggers" / "reading" / "known_flags.py"

TABLES: Final = {
    "every driver": COMMON_OPTIONS,
    **{name: driver.options for name, driver in DRIVER_OPTIONS.items()},
}
"""By the name in the markers, `<!-- NAME -->` and `<!-- end of NAME -->`."""


def main() -> None:
    """Write the page and the module."""
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    FLAGS.write_text(render_flags(), encoding="utf-8")


def render_page(text: str) -> str:
    """Return the page with the tables as they are now.

    Raises:
        ValueError: a table has no place on it.
    """
    for name, options in TABLES.items():
        text = put_table(text, name, _render_table(options))
    return text


def render_flags() -> str:
    """Return the module that says which flags loggers know."""
    destinations = "".join(
        f'    "{name}": {_render_names(_find_flags(name), 4)},\n' for name in DESTINATIONS
    )
    return (
        '"""Names of all flags, made by `make docs` from fargate_agent/wire/log_options.py."""\n'
        f"\nLOGGER = {_render_names({*LOGGER_FLAGS, *COMMON_NAMES})}\n"
        '"""Of the program `logger`, whatever the driver."""\n'
        f"DESTINATIONS = {{\n{destinations}}}\n"
        '"""Of the program `logger` besides, by the driver."""\n'
        f"JSON_FILE = {_render_names(_find_flags('json-file') | COMMON_NAMES)}\n"
        '"""Of the program `json-file`."""\n'
    )


def _render_table(options: Iterable[LogOption]) -> str:
    """Options that differ in nothing but their names share a row."""
    rows = [_render_row(list(same)) for _, same in groupby(options, _describe)]
    return "".join(["| option | values | default | meaning |\n|---|---|---|---|\n", *rows])


def _describe(option: LogOption) -> tuple[str, str, str]:
    return option.values, "required" if option.required else option.default, option.meaning


def _render_row(options: list[LogOption]) -> str:
    names = ", ".join(
        f"`{option.name}`" if option.on_fargate else f"`{option.name}` *" for option in options
    )
    cells = (f" {cell} |" if cell else " |" for cell in (names, *_describe(options[0])))
    return f"|{''.join(cells)}\n"


def _find_flags(driver: str) -> set[str]:
    return {*DRIVER_OPTIONS[driver].flags, *_name_flags(DRIVER_OPTIONS[driver].options)}


def _name_flags(options: Iterable[LogOption]) -> Iterator[str]:
    return (option.flag_name for option in options if option.flag_name is not None)


def _render_names(names: Iterable[str], indent: int = 0) -> str:
    margin = " " * indent
    lines = "".join(f'{margin}    "{name}",\n' for name in sorted(names))
    return f"(\n{lines}{margin})"


if __name__ == "__main__":
    main()
