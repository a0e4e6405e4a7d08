"""What this machine denies its tasks, each thing said once.

A driver that can't do what a task asks for, and may go on without it, notes a finding: it is
logged at once, and `fargate doctor` lists it until the machine is started anew.
"""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from fargate_agent.files import replace_file

FILE: Final = "findings.json"
"""Below the state directory."""

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
        self._news = asyncio.Event()

    def __iter__(self) -> Iterator[Finding]:
        return iter(tuple(self._noted))

    def note(self, what: str, effect: str) -> None:
        """Remember a finding; a repeated one is neither kept nor logged again."""
        finding = Finding(what=what, effect=effect)
        if finding not in self._noted:
            self._noted[finding] = None
            self._news.set()
            log.warning("%s: %s", what, effect)

    async def recall(self, state_dir: Path, boot_id: str) -> None:
        """Take over what an agent before has noted since the machine was started."""
        for finding in await asyncio.to_thread(_read, state_dir / FILE, boot_id):
            self._noted.setdefault(finding)

    async def keep(self, state_dir: Path, boot_id: str) -> None:
        """Write each new finding down for the next agent; never returns."""
        file = state_dir / FILE
        while True:
            await self._news.wait()
            self._news.clear()
            text = json.dumps({"bootId": boot_id, "findings": [asdict(one) for one in self]})
            try:
                await asyncio.to_thread(replace_file, file, f"{text}\n", durable=False)
            except OSError as error:  # the next one is another try
                log.warning("%s: %s", file, error.strerror)


def _read(file: Path, boot_id: str) -> list[Finding]:
    """The findings in a file; none if it isn't there, makes no sense, or is of another boot."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["bootId"] == boot_id:
            return [Finding(**one) for one in document["findings"]]
    return []
