"""The kernel's settings of one network namespace, below /proc/sys/net.

They are those of the namespace that the calling thread is in. All functions block, for
microseconds.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path("/proc/sys/net")

TASK_SETTINGS: Final = {
    f"{path}/{setting}": 0
    for path in ("ipv4/conf/all", "ipv4/conf/default", "ipv6/conf/all", "ipv6/conf/default")
    for setting in ("forwarding", "accept_redirects")
} | {"ipv6/conf/all/accept_ra": 0, "ipv6/conf/default/accept_ra": 0}
"""A task passes nothing on, and takes no route and no address from its neighbours: those it has are
given to it."""

METADATA_SETTINGS: Final = {
    setting: value
    for scope in ("all", "default")
    for setting, value in (
        (f"ipv4/conf/{scope}/forwarding", 0),
        # Answers leave by the interface the listener is bound to; no route leads back to a task.
        (f"ipv4/conf/{scope}/rp_filter", 0),
        (f"ipv6/conf/{scope}/disable_ipv6", 1),
    )
}
"""Those of the namespace where tasks find their metadata."""

HOST_END_SETTINGS: Final = {
    "ipv6/conf/{name}/accept_ra": 0,
    "ipv6/conf/{name}/accept_redirects": 0,
    "ipv6/conf/{name}/autoconf": 0,
    "ipv6/conf/{name}/force_forwarding": 1,
}
"""The host's end of an ENI takes nothing from the task but packets to be passed on; set before it
is up. What there is of IPv4 goes by netlink. Source: Linux,
Documentation/networking/ip-sysctl.rst."""


def write_settings(settings: Mapping[str, int]) -> None:
    """Make each setting so, by its path below /proc/sys/net.

    Those of an IP version that the kernel doesn't have are left out.

    Raises:
        OSError: the kernel refused.
    """
    for name, value in settings.items():
        with suppress(FileNotFoundError):
            path = ROOT / name
            if path.read_text(encoding="ascii").strip() != str(value):
                path.write_text(str(value), encoding="ascii")
