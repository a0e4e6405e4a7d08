"""What stands for something of a task's definition on the machine of the task, in words. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final

from fargate_agent.cli.clients.shapes import Replacement
from fargate_agent.cli.output import one_line

TITLE: Final = "replaced on this machine"


def tell_replacements(replacements: Iterable[Replacement]) -> Iterator[str]:
    """Give a line for each.

    Example:
        >>> list(tell_replacements([{"kind": "role", "what": "web", "by": "the profile dev"}]))
        ['role web by the profile dev']
    """
    for one in replacements:
        yield one_line(f"{one['kind'].replace('-', ' ')} {one['what']} by {one['by']}")
