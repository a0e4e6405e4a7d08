"""What a logger has to say about itself: to the journal, and to the local copy of the output.

Its stderr is /dev/null. Source: systemd.io, "Native Journal Protocol".
"""

import time
from _socket import AF_UNIX, SOCK_DGRAM, socket

from local.local_copy import LocalCopy

JOURNAL = "/run/systemd/journal/socket"
AGAIN_S = 60
"""A trouble that goes on is told again after so long."""
MAX_TOLD = 60
"""So much is told to the journal in that time: a destination that refuses line after line must not
push out what others have written there. The local copy has it all."""
ERROR = 3
WARNING = 4
"""Source: syslog(3)."""


class Reports:
    """Tells people what goes wrong in this program."""

    def __init__(
        self, driver: str, container_id: str, copy: LocalCopy | None, journal: str = JOURNAL
    ) -> None:
        self._driver = driver
        self._container_id = container_id
        self._copy = copy
        self._journal = journal
        self._told_at = float("-inf")
        self._counted_from = float("-inf")
        self._told = 0

    def trouble(self, text: str) -> None:
        """Tell of something that is tried again; not more often than once a minute."""
        if time.monotonic() - self._told_at >= AGAIN_S:
            self._told_at = time.monotonic()
            self._tell(text, WARNING)

    def loss(self, text: str) -> None:
        """Tell of something that can't be made good."""
        self._tell(text, ERROR)

    def _tell(self, text: str, priority: int) -> None:
        line = f"{self._driver}: {text}".replace("\n", " ")
        if self._copy is not None:
            self._copy.note(line)
        if time.monotonic() - self._counted_from >= AGAIN_S:
            self._counted_from, self._told = time.monotonic(), 0
        self._told += 1
        if self._told > MAX_TOLD:
            return
        fields = (
            f"MESSAGE={line}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=shim-logger\n"
            f"CONTAINER_ID={self._container_id}\n"
        )
        sock = socket(AF_UNIX, SOCK_DGRAM)
        sock.settimeout(0.2)
        try:
            sock.sendto(fields.encode(errors="replace"), self._journal)
        except OSError:
            return  # no journald here; the local copy has it
        finally:
            sock.close()
