"""docs/task-definition.md names tests that there are, and every parameter has one."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = CHECKOUT / "docs" / "task-definition.md"
TEST: Final = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


@cache
def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def rows() -> list[str]:
    tables = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [row for row in tables if not row.startswith(("|---", "| parameter |"))]


def test_every_row_names_a_test() -> None:
    assert [row for row in rows() if not TEST.search(row)] == []
    assert len(rows()) > 20


def test_every_test_that_the_page_names_is_there() -> None:
    missing = [
        (file, name)
        for file, name in TEST.findall(PAGE.read_text())
        if not (path := CHECKOUT / "tests" / file).exists() or name not in functions(path)
    ]

    assert missing == []
