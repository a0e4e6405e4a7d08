"""The kernel's settings of one network namespace, below /proc/sys/net.

They are those of the namespace that the calling thread is in. All functions block, for
microseconds.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path("/proc/sys/net")

_IGNORE_ANNOUNCEMENTS: Final = {
    "ipv4/conf/{name}/accept_redirects": 0,
    "ipv6/conf/{name}/accept_ra": 0,
    "ipv6/conf/{name}/accept_redirects": 0,
    "ipv6/conf/{name}/autoconf": 0,
}
"""Source: Linux, Documentation/networking/ip-sysctl.rst."""


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


def ignore_announcements(name: str) -> None:
    """Let an interface of the host take no address and no route from what tasks send to it.

    To be called before the interface is up.

    Raises:
        OSError: the kernel refused.
    """
    write_settings({path.format(name=name): to for path, to in _IGNORE_ANNOUNCEMENTS.items()})
