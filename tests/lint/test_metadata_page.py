"""docs/metadata.md has a row for each path of the metadata endpoint, and for each field."""

import re
from pathlib import Path
from typing import Final

import pytest
from pydantic import BaseModel

from fargate_agent.tmds.routes import ROUTES
from fargate_agent.wire import metadata, stats

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "metadata.md"
PATH: Final = re.compile(r"^\| `(/[^`]*)` \|", re.MULTILINE)
TABLE: Final = re.compile(r"<!-- members of (\w+) -->\n\n((?:\|.*\n)+)")
BASES: Final = {metadata.Shape, stats.StatsShape}

SHAPES: Final = {
    name: shape
    for module in (metadata, stats)
    for name, shape in vars(module).items()
    if isinstance(shape, type)
    and issubclass(shape, BaseModel)
    and shape not in BASES
    and not name.startswith("_")
    and shape.__module__ == module.__name__
    and shape is not BaseModel
}


def tables() -> dict[str, list[str]]:
    """Return the fields that each table names, in its order."""
    found = {}
    for name, table in TABLE.findall(PAGE.read_text(encoding="utf-8")):
        rows = [row.split("|")[1] for row in table.splitlines()[2:]]
        found[name] = [field for row in rows for field in re.findall(r"`(\w+)`", row)]
    return found


def test_page_has_each_path_and_no_other() -> None:
    assert sorted(PATH.findall(PAGE.read_text(encoding="utf-8"))) == sorted(
        route.pattern for route in ROUTES
    )


def test_page_has_each_shape_with_fields() -> None:
    assert tables().keys() == {name for name, shape in SHAPES.items() if shape.model_fields}


@pytest.mark.parametrize("name", sorted(name for name in SHAPES if SHAPES[name].model_fields))
def test_table_has_each_field_and_no_other(name: str) -> None:
    fields = {
        field.serialization_alias or field.alias or own
        for own, field in SHAPES[name].model_fields.items()
    }

    assert set(tables()[name]) == fields
