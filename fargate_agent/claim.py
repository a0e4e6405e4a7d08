"""What one agent on this machine keeps from every other: names that go when the process ends.

A name is a unix socket without a file, so nothing is left of it, however the process ends.
"""

import hashlib
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S: Final = 1.0
_CREDENTIALS: Final = struct.Struct("iII")
"""Process, user and group. Source: unix(7), `struct ucred`."""


class ClaimedError(Exception):
    """Another process has the name; the text says which, e.g. `process 123`."""


@contextmanager
def claim(what: str) -> Iterator[None]:
    """Hold a name while the body runs.

    A name that somebody without our rights holds is no agent's, and keeps none from working.

    Raises:
        ClaimedError: another agent holds it.
    """
    digest = hashlib.sha256(what.encode()).hexdigest()[:32]
    address = f"\0fargate-agent/{digest}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
        try:
            holder.bind(address)
        except OSError:
            pid, user = _read_holder(address)
            if user not in (None, os.geteuid()):
                log.warning("process %s of user %s poses as an agent: ignored", pid, user)
            else:
                raise ClaimedError(f"process {pid or '?'}") from None
        else:
            holder.listen()
        yield


def _read_holder(address: str) -> tuple[int | None, int | None]:
    """Return process and user of who listens at the address; None where nobody says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_TIMEOUT_S)
        try:
            connection.connect(address)
        except OSError:
            return None, None
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(raw)
    return pid, user
