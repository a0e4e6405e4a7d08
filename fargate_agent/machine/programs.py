"""Programs of this machine that tasks need."""

from collections.abc import Iterator

from fargate_agent.findings import Finding
from fargate_agent.runtime.init import NO_INIT, find_init


def find_program_faults() -> Iterator[Finding]:
    """Yield the programs that are missing; blocks."""
    if find_init() is None:
        yield Finding(what=NO_INIT, effect="tasks with initProcessEnabled or pidMode don't start")
