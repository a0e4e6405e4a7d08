"""What this machine denies its tasks, each thing said once.

A driver that can't do what a task asks for, and may go on without it, notes a finding: it is
logged at once and listed by `fargate doctor`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    what: str
    """What is missing, e.g. `the kernel has no nftables`."""
    effect: str
    """What that means for tasks, e.g. `they can't reach other networks`."""


class Findings:
    """The findings of one agent, in the order in which they were noted."""

    def __init__(self) -> None:
        self._noted: dict[Finding, None] = {}

    def __iter__(self) -> Iterator[Finding]:
        return iter(tuple(self._noted))

    def note(self, what: str, effect: str) -> None:
        """Remember a finding; a repeated one is neither kept nor logged again."""
        finding = Finding(what=what, effect=effect)
        if finding not in self._noted:
            self._noted[finding] = None
            log.warning("%s: %s", what, effect)
