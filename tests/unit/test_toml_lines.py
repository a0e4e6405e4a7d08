"""On which line of a TOML file a key stands, however it is written."""

import tomllib

import pytest

from fargate_agent.toml_lines import find_line

ROWS = """\
[[rows]]
name = "first"
[rows.more]
deep = 1
[[rows.cells]]
value = 1
[[rows.cells]]
value = 2

[[ rows ]]
name = "second"
[[rows.cells]]
value = 3
"""


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        pytest.param("a = 1\n\n# b = 2\n  b = 3", ("b",), 4, id="after blank and comment"),
        pytest.param("a = 1\r\nb = 2\r\n", ("b",), 2, id="CRLF"),
        pytest.param("a = 1 # c = 2\nc = 3", ("c",), 2, id="not in a comment"),
        pytest.param('a = "b = 1 # [c]"\nb = 2', ("b",), 2, id="not in a string"),
        pytest.param("a = 'it\"s'\nb = 2", ("b",), 2, id="quote in a literal string"),
        pytest.param('a = """\nb = 1\n"""\nb = 2', ("b",), 4, id="not in a long string"),
        pytest.param("a = '''\nb = 1\n[c]\n'''\nb = 2", ("b",), 5, id="long literal"),
        pytest.param('a = """x \\"""\nb = 1"""""\nb = 2', ("b",), 3, id="quotes in a long string"),
        pytest.param('a = ""\nb = 2', ("b",), 2, id="empty string"),
        pytest.param('a = [\n "]", # ]\n {b = 1},\n]\nb = 2', ("b",), 5, id="array over lines"),
        pytest.param("a = [\n 1,\n 2,\n]", ("a", 1), 1, id="item is where its array is"),
        pytest.param("a = 1\nb = {x = 1, y = {z = 2}}", ("b", "y", "z"), 2, id="inline table"),
        pytest.param("[t]\na = 1\n[u]\na = 2", ("u", "a"), 4, id="table"),
        pytest.param("[t] # [u]\na = 1", ("t", "a"), 2, id="comment beside a header"),
        pytest.param("[t]\na = 1\n[t.u]\nb = 2", ("t", "u"), 3, id="header of a table"),
        pytest.param("[t.u.v]\na = 1", ("t",), 1, id="table that only its child names"),
        pytest.param("a.b.c = 1\na.b.d = 2", ("a", "b", "d"), 2, id="dotted key"),
        pytest.param("a . b = 1\na.c = 2", ("a", "b"), 1, id="dotted key with blanks"),
        pytest.param('x = 1\n"a b" = 1', ("a b",), 2, id="quoted key"),
        pytest.param('x = 1\n"a = b#" = 1', ("a = b#",), 2, id="signs in a quoted key"),
        pytest.param("['a.b'.\"c\\u0064\"]\ne = 1", ("a.b", "cd", "e"), 2, id="quoted header"),
        pytest.param('["a#b"]\nc = 1', ("a#b", "c"), 2, id="hash in a header"),
        pytest.param(ROWS, ("rows", 0, "name"), 2, id="first row"),
        pytest.param(ROWS, ("rows", 0, "more", "deep"), 4, id="table in a row"),
        pytest.param(ROWS, ("rows", 0, "cells", 1, "value"), 8, id="rows in a row"),
        pytest.param(ROWS, ("rows", 1), 10, id="second row itself"),
        pytest.param(ROWS, ("rows", 1, "name"), 11, id="second row"),
        pytest.param(ROWS, ("rows", 1, "cells", 0, "value"), 13, id="rows in the second row"),
        pytest.param(ROWS, ("rows", 1, "absent"), 10, id="missing key: where its table begins"),
        pytest.param(ROWS, ("rows",), 1, id="array of tables"),
        pytest.param("a = 1", ("b",), None, id="nowhere"),
        pytest.param("a = 1", (), None, id="the whole file"),
    ],
)
def test_line_of_a_key(text: str, path: tuple[str | int, ...], line: int | None) -> None:
    tomllib.loads(text)  # only what the parser takes is looked at

    assert find_line(text, path) == line
