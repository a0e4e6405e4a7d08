"""What the settings of the agent say of networks, in detail."""

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

CNI_BIN_DIRS: Final = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
"""Where those are who package CNI plugins put them: upstream, and Debian."""

MAX_PORT: Final = 65535

_HOST_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp))?")


def check_host_port(text: str) -> str:
    """Return `PORT`, `FIRST-LAST`, or either with `/tcp` or `/udp` behind it.

    Raises:
        ValueError: it is none of them.
    """
    found = _HOST_PORT.fullmatch(text)
    if found is not None:
        first, last = int(found[1]), int(found[2] or found[1])
        if 0 < first <= last <= MAX_PORT:
            return text
    raise ValueError("must be ports such as 5432, 53/udp or 8000-8100/tcp")


def parse_host_port(text: str) -> tuple[str, int, int]:
    """Return protocol, first and last port; without a protocol it is TCP.

    Raises:
        ValueError: as `check_host_port`.
    """
    ports, _, protocol = check_host_port(text).partition("/")
    first, _, last = ports.partition("-")
    return protocol or "tcp", int(first), int(last or first)


HostPort = Annotated[str, AfterValidator(check_host_port)]
