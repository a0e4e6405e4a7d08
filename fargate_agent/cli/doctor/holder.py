"""Which process of this machine holds a port."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_HERE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LISTENS: Final = "0A"
"""Source: Linux, include/net/tcp_states.h, `TCP_LISTEN`; proc(5), /proc/net/tcp."""


def find_holder(endpoint: str) -> str:
    """Return which process of this machine holds the port of an endpoint here; empty if unknown.

    Only root sees the processes of others.
    """
    parts = urlsplit(endpoint)
    if parts.hostname not in _HERE or parts.port is None:
        return ""
    sockets = {f"socket:[{inode}]" for inode in _find_listeners(parts.port)}
    for link in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        with suppress(OSError):
            if str(link.readlink()) in sockets:
                process = link.parent.parent
                return f"process {process.name}, {(process / 'comm').read_text().strip()}"
    return ""


def _find_listeners(port: int) -> Iterator[str]:
    """The inodes of sockets that listen there."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
