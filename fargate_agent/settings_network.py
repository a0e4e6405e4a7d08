"""What the settings of the agent say of networks, in detail."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

from fargate_agent.setting_values import check_host_port

CNI_BIN_DIRS: Final = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
"""Where those are who package CNI plugins put them: upstream, and Debian."""


def parse_host_port(text: str) -> tuple[str, int, int]:
    """Return protocol, first and last port; without a protocol it is TCP.

    Raises:
        ValueError: as `check_host_port`.
    """
    ports, _, protocol = check_host_port(text).partition("/")
    first, _, last = ports.partition("-")
    return protocol or "tcp", int(first), int(last or first)


HostPort = Annotated[str, AfterValidator(check_host_port)]
