"""What one `fargate up` keeps from others: its state directory, a port, a range of addresses.

The kernel lets go of a claim when the process ends, however it ends.
"""

import fcntl
import re
import socket
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fargate_agent.cli.failure import CliError

_PREFIX: Final = "fargate/"
_SOCKETS: Final = Path("/proc/net/unix")


class Claims:
    """Holds claims until it is closed.

    A name is claimed by binding an abstract unix socket: such names are one space per network
    namespace, as ports and routes are.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held = ExitStack()
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.close()

    def lock(self, file: Path) -> None:
        """Lock a file.

        Raises:
            CliError: another process holds it.
        """
        opened = self._held.enter_context(file.open("w"))
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CliError(f'{file.parent}: another "fargate up" runs here') from None

    def take(self, name: str) -> bool:
        """Claim a name, and return whether it is ours now."""
        if name in self._names:
            return True
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0{_PREFIX}{name}")
        except OSError:
            holder.close()
            return False
        self._held.enter_context(holder)
        self._names.add(name)
        return True

    def take_range(self, network: IPv4Network) -> bool:
        """Claim a range that overlaps with no range that another process has claimed."""
        if any(network.overlaps(other) for other in _claimed_ranges(_SOCKETS.read_text())):
            return False
        return self.take(f"range/{network}")


def _claimed_ranges(sockets: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in re.findall(rf"@{_PREFIX}range/([\d./]+)", sockets)]
