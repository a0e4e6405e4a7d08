"""By what an interface is known to belong to one attachment of a container.

The mark stands in the alias of an interface that stays on the host. Who is in a container can
change the alias of what is in there.
"""

import zlib
from collections.abc import Iterator
from typing import Final

MAX_PART_CHARS: Final = 64
"""A longer name stands in a mark by its hash: an alias has room for 255 bytes. Source: Linux,
include/uapi/linux/if.h, IFALIASZ."""
NAME_TRIES: Final = 10
"""Source: containernetworking/plugins, pkg/ip/link_linux.go, which tries as often."""

_MARK: Final = "fargate-cni"


def network_prefix(plugin: str, network: str) -> str:
    """What every mark of a plugin begins with that is of one network."""
    return f"{_MARK}:{plugin}:{_shorten(network)}:"


def render_mark(plugin: str, network: str, container_id: str, ifname: str) -> str:
    """Return the mark of one attachment."""
    return f"{network_prefix(plugin, network)}{_shorten(container_id)}:{ifname}"


def host_end_names(mark: str) -> Iterator[str]:
    """Yield the names that the host's end of an attachment may have, the likeliest first."""
    for attempt in range(NAME_TRIES):
        yield f"veth{zlib.crc32(f'{attempt}{mark}'.encode()):08x}"


def _shorten(part: str) -> str:
    if len(part) <= MAX_PART_CHARS:
        return part
    import hashlib  # takes two milliseconds to load, and most ids have 64 characters

    return f"~{hashlib.sha256(part.encode()).hexdigest()[:40]}"
