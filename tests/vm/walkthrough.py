"""The commands of docs/install.md, done in the machine as they stand there."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm.lab import Lab, Progress, require
from tests.vm.lifecycle import INSTALL_TIMEOUT_S

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs/install.md"

_HEADING: Final = re.compile(r"^#+ +(.+)$")
_FENCE: Final = "```"


@dataclass(frozen=True, slots=True)
class Block:
    """Commands for a shell, and the heading that they stand below."""

    heading: str
    script: str


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of a Markdown text that are marked `sh`."""
    blocks: list[Block] = []
    heading, language, lines = "", None, list[str]()
    for line in text.splitlines():
        if language is None and line.startswith(_FENCE):
            language, lines = line.removeprefix(_FENCE).strip(), []
        elif language is not None and line == _FENCE:
            if language == "sh":
                blocks.append(Block(heading, "\n".join(lines)))
            language = None
        elif language is not None:
            lines.append(line)
        elif found := _HEADING.match(line):
            heading = found[1]
    return blocks


class Walkthrough:
    """Goes through the document from its beginning to its end."""

    def __init__(self, lab: Lab, progress: Progress) -> None:
        self._lab = lab
        self._progress = progress
        self._blocks = read_blocks(DOCUMENT.read_text())

    def go_on(self) -> None:
        """Do the next block."""
        self._do(1)

    def go_to(self, heading: str) -> None:
        """Do all that stands before the blocks of a heading."""
        headings = [block.heading for block in self._blocks]
        require(heading in headings, f"{DOCUMENT.name} has no commands below {heading!r}")
        self._do(headings.index(heading))

    def go_to_end(self) -> None:
        """Do the rest."""
        self._do(len(self._blocks))

    def _do(self, count: int) -> None:
        todo, self._blocks = self._blocks[:count], self._blocks[count:]
        for block in todo:
            first = block.script.splitlines()[0]
            with self._progress.check(f"{DOCUMENT.name}, {block.heading}: {first[:60]}"):
                self._lab.sh(f"cd /root/main\nset -euo pipefail\n{block.script}", INSTALL_TIMEOUT_S)
