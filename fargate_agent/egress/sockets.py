"""Sockets of a task: how they come to be, and what went wrong with one."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

OpenSocket = Callable[[int, int, int], socket.socket]
"""Opens a socket of a family, type and protocol in the task's network namespace."""

OpenTaskSocket = Callable[[Path, int, int, int], socket.socket]
"""Opens a socket of a family, type and protocol in the network namespace of that path."""


def explain_os_error(error: OSError) -> str:
    """Say what the kernel said. asyncio puts texts of its own, with addresses, in its place."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
