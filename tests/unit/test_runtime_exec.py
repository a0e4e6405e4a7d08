"""What is told about a program that is run inside a container."""

import json
from typing import Any

from fargate_agent.runtime.exec import render_process

FIRST: dict[str, Any] = {
    "terminal": False,
    "args": ["web", "--serve"],
    "env": ["PATH=/bin", "COLOUR=red"],
    "cwd": "/srv",
    "user": {"uid": 7, "gid": 8},
    "rlimits": [],
}


def render(*, terminal: bool, process: dict[str, Any] = FIRST) -> dict[str, Any]:
    text = render_process(process, ("id", "-u"), "health,0af1", terminal=terminal)
    rendered: dict[str, Any] = json.loads(text)
    return rendered


def test_a_program_is_as_the_first_process_but_for_what_it_runs() -> None:
    assert render(terminal=False) == {
        **FIRST,
        "args": ["id", "-u"],
        "env": ["PATH=/bin", "COLOUR=red", "FARGATE_EXEC=health,0af1"],
    }


def test_a_terminal_has_a_type() -> None:
    rendered = render(terminal=True)

    assert rendered["terminal"] is True
    assert rendered["env"][-1] == "TERM=xterm"


def test_the_type_that_a_container_gives_its_terminals_stays() -> None:
    process = {**FIRST, "env": ["TERM=vt100"]}

    assert render(terminal=True, process=process)["env"] == [
        "TERM=vt100",
        "FARGATE_EXEC=health,0af1",
    ]
