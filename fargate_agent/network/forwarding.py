"""Whether the host passes packets on between its interfaces.

The kernel decides that by the interface a packet comes in through: a task's packets by their
bridge, the answers by the interface that leads to their sender. So forwarding is switched on for
the interfaces that have routes. `conf/all` and `conf/default` stay as they are, unless it is IPv6
and the kernel knows no other way.
"""

import logging
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.network.sysctl import ROOT

log = logging.getLogger(__name__)

FORCE_FORWARDING: Final = "force_forwarding"
"""Forwarding of IPv6 on one interface, since Linux 6.17. Source: Linux,
Documentation/networking/ip-sysctl.rst."""
ACCEPT_ALSO_WHEN_FORWARDING: Final = "2"
"""Source: the same, `accept_ra`."""

_LINKS: Final = Path("/sys/class/net")
_ROUTES_V4: Final = Path("/proc/thread-self/net/route")
_ROUTES_V6: Final = Path("/proc/thread-self/net/ipv6_route")
_NOT_ROUTED: Final = ("fe80", "ff")
"""How the destinations begin that each interface has, and that stay on its own wire."""


def ensure_forwarding(version: int) -> None:
    """Have packets of IP version 4 or 6 passed on between all interfaces that have routes now.

    Whoever switches forwarding off for the whole host clears this, and interfaces come later.
    So it is called for each ENI, and again from time to time.
    Blocks, for microseconds.

    Raises:
        OSError: the kernel refused.
    """
    conf = ROOT / f"ipv{version}" / "conf"
    if _read(conf / "all" / "forwarding") != "0":
        return
    if version == 4:
        _switch_on(conf, "forwarding", _routed_v4())
    elif (conf / "all" / FORCE_FORWARDING).exists():
        _switch_on(conf, FORCE_FORWARDING, _routed_v6())
    else:
        _forward_everywhere_v6(conf)


def _switch_on(conf: Path, setting: str, names: set[str]) -> None:
    for path in (conf / name / setting for name in sorted(names)):
        with suppress(FileNotFoundError):  # the interface has gone meanwhile
            if _read(path) == "0":
                path.write_text("1", encoding="ascii")
                log.info("switched on %s, so that tasks reach other networks", path)


def _forward_everywhere_v6(conf: Path) -> None:
    """For kernels that can't forward IPv6 on single interfaces.

    A host that forwards stops listening to routers, and would lose what it has from them. So its
    uplinks that listen are told to go on: what is neither a bridge nor a port of one. No router
    may be behind those but a task.
    """
    for path in (conf / name / "accept_ra" for _, name in socket.if_nameindex()):
        with suppress(FileNotFoundError):  # the interface has gone meanwhile
            if _is_uplink(path.parent.name) and _read(path) == "1":
                path.write_text(ACCEPT_ALSO_WHEN_FORWARDING, encoding="ascii")
    (conf / "all" / "forwarding").write_text("1", encoding="ascii")
    log.info("switched on forwarding of IPv6, so that tasks reach other networks")


def _is_uplink(name: str) -> bool:
    link = _LINKS / name
    return not (link / "bridge").exists() and not (link / "master").exists()


def _routed_v4() -> set[str]:
    """The interfaces with routes in the main table. Source: proc(5), /proc/net/route."""
    _, *lines = _ROUTES_V4.read_text(encoding="ascii").splitlines()
    return {line.split()[0] for line in lines}


def _routed_v6() -> set[str]:
    """The same of IPv6. Source: Linux, net/ipv6/route.c, `rt6_info_route`."""
    routes = [line.split() for line in _ROUTES_V6.read_text(encoding="ascii").splitlines()]
    return {
        name
        for destination, *_, name in routes
        if name != "lo" and not destination.startswith(_NOT_ROUTED)
    }


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
