"""What went through the interfaces of a task, read inside its network namespace.

A thread steps into the namespace and reads one file there, in some 50 µs; asking by netlink would
need a socket for each task. Source: proc(5), /proc/[pid]/net/dev.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from fargate_agent.network.namespaces import inside
from fargate_agent.network.netlink import LinkStats

_FIELDS: Final = 16
"""Eight that were received and eight that were sent."""


def read_links(netns: Path, names: Collection[str]) -> dict[str, LinkStats]:
    """Return the counters of those interfaces that are there. Blocks; call it in a thread.

    Raises:
        OSError: there is no such namespace.
    """
    with inside(netns):
        text = Path("/proc/thread-self/net/dev").read_text(encoding="ascii", errors="replace")
    return parse_links(text, names)


def parse_links(text: str, names: Collection[str]) -> dict[str, LinkStats]:
    """Return the counters of some interfaces from the text of `net/dev`."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        fields = rest.split()
        if colon and name.strip() in names and len(fields) >= _FIELDS:
            numbers = list(map(int, fields))
            found[name.strip()] = LinkStats(
                rx_bytes=numbers[0],
                rx_packets=numbers[1],
                rx_errors=numbers[2],
                rx_dropped=numbers[3],
                tx_bytes=numbers[8],
                tx_packets=numbers[9],
                tx_errors=numbers[10],
                tx_dropped=numbers[11],
            )
    return found
