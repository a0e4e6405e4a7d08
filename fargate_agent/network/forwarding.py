"""Whether the host passes packets on between its interfaces: the switches under /proc/sys."""

import logging
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

SWITCHES: Final = {
    4: Path("/proc/sys/net/ipv4/ip_forward"),
    6: Path("/proc/sys/net/ipv6/conf/all/forwarding"),
}
ACCEPT_ALSO_WHEN_FORWARDING: Final = "2"
"""Source: Linux, Documentation/networking/ip-sysctl.rst, `accept_ra`."""


def ensure_forwarding(version: int) -> None:
    """Switch forwarding on, for IP version 4 or 6, if it is off.

    A host that forwards IPv6 stops listening to routers, and would lose its own default route. So
    interfaces that listen are told to go on. Blocks, for microseconds.

    Raises:
        OSError: the kernel refused.
    """
    switch = SWITCHES[version]
    if switch.read_text(encoding="ascii").strip() != "0":
        return
    if version == 6:
        for setting in switch.parent.parent.glob("*/accept_ra"):
            if setting.read_text(encoding="ascii").strip() == "1":
                setting.write_text(ACCEPT_ALSO_WHEN_FORWARDING, encoding="ascii")
    switch.write_text("1", encoding="ascii")
    log.info("switched on forwarding of IPv%d, so that tasks reach other networks", version)
