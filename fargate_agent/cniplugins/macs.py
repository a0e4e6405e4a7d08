"""MAC addresses of configurations."""

import re
from typing import Final

from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError

_MAC: Final = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}")


def read_mac(text: str, what: str) -> str:
    """Return a MAC as the kernel writes it; `what` it is, for the message.

    Raises:
        CniError: it is none.
    """
    mac = text.lower()
    if not _MAC.fullmatch(mac):
        raise CniError(f"invalid {what}: {text!r} is no MAC address", INVALID_CONFIG)
    return mac.replace("-", ":")
