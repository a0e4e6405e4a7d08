"""What stands for something of a task's definition on the machine of the task, as its agent says.

It is a part of the task's document: DescribeTasks shows it, which ECS doesn't.
"""

from typing import Final

from fargate_agent.controlplane.state.model import Task
from fargate_agent.controlplane.validate import Json

MAX_REPLACEMENTS: Final = 200
"""Of one task. A definition has 64 KiB; one that names more things is told about in part."""

MAX_CHARS: Final = {"kind": 32, "what": 1024, "by": 256}
"""Of each member; what is longer is cut."""


def note_replacements(task: Task, reported: list[Json]) -> bool:
    """Add what is not known yet of a report; return whether anything was.

    A thing that is told of again, by whatever it is replaced, stays as it was told first.
    """
    known = list_replacements(task)
    found = {_thing(one): one for one in known}
    for one in reported:
        cut = {member: str(one[member])[:most] for member, most in MAX_CHARS.items()}
        if len(found) < MAX_REPLACEMENTS:
            found.setdefault(_thing(cut), cut)
    if len(found) == len(known):
        return False
    task.document = {**(task.document or {}), "replacements": list(found.values())}
    return True


def list_replacements(task: Task) -> list[Json]:
    """Return what is known: objects with `kind`, `what` and `by`, all text."""
    known: list[Json] = (task.document or {}).get("replacements", [])
    return known


def _thing(replacement: Json) -> tuple[str, str]:
    return replacement["kind"], replacement["what"]
