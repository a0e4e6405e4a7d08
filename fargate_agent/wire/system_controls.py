"""Which kernel parameters a container may set: those that its namespaces have for themselves."""

import re
from typing import Final

_NAMES: Final = re.compile(
    r"net\.[\w./-]+|fs\.mqueue\.[\w./-]+|"
    r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)",
    re.ASCII,
)
"""Source: ECS API, SystemControl."""

_LOOSENING: Final = re.compile(
    r"net/ipv4/ip_forward|"
    r"net/ipv[46]/conf/.+/(forwarding|force_forwarding|accept_redirects|accept_ra)"
)
"""Source: Linux, Documentation/networking/ip-sysctl.rst."""


def is_system_control(name: str) -> bool:
    """Whether the ECS API has this parameter.

    Example:
        >>> is_system_control("net.core.somaxconn"), is_system_control("vm.swappiness")
        (True, False)
    """
    return _NAMES.fullmatch(name) is not None


def loosens_network(name: str, value: str) -> bool:
    """Whether a task would pass packets on, or take routes and addresses from its neighbours.

    What it passes on to its metadata endpoint arrives there as its own. Names are paths below
    /proc/sys, so that one parameter has many: runtimes take dots for slashes, and the kernel takes
    several slashes for one.

    Example:
        >>> loosens_network("net..ipv4//ip_forward.", "1")
        True
    """
    path = "/".join(filter(None, re.split(r"[./]", name)))
    return value.strip() != "0" and _LOOSENING.fullmatch(path) is not None
