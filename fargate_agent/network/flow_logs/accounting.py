"""The kernel's switch for counting the packets of flows: on while somebody needs it."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.files import replace_file
from fargate_agent.network.sysctl import ROOT

SWITCH: Final = "netfilter/nf_conntrack_acct"
"""Flows that begin while it is on are counted. Source: Linux,
Documentation/networking/nf_conntrack-sysctl.rst."""
EVENTS: Final = "netfilter/nf_conntrack_events"
"""0: nobody is told of flows. Source: the same."""
FILE: Final = "flow-accounting"
"""Below the state directory; is there while the switch is on because of the agent."""

log = logging.getLogger(__name__)


def tells_ends() -> bool:
    """Whether the kernel tells of flows that end. Blocks, for microseconds."""
    with suppress(OSError):
        return (ROOT / EVENTS).read_text(encoding="ascii").strip() != "0"
    return False


class Accounting:
    """The switch, as one agent uses it. Both methods block, for microseconds."""

    def __init__(self, state_dir: Path) -> None:
        """Touches nothing."""
        self._file = state_dir / FILE

    def switch_on(self) -> None:
        """Have flows counted that begin from now on.

        Raises:
            OSError: the kernel can't, or what is changed can't be written down.
        """
        switch = ROOT / SWITCH
        if switch.read_text(encoding="ascii").strip() == "0":
            replace_file(self._file, "", durable=False)
            switch.write_text("1", encoding="ascii")

    def restore(self) -> None:
        """Switch off what this agent, or the one before, has switched on.

        Raises:
            OSError: the kernel refused.
        """
        if self._file.exists():
            with suppress(FileNotFoundError):
                (ROOT / SWITCH).write_text("0", encoding="ascii")
            self._file.unlink(missing_ok=True)
