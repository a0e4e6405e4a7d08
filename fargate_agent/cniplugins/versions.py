"""Versions of CNI.

Source: containernetworking/cni, SPEC.md of each.
"""

from typing import Final

VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Those that all plugins here speak, the newest last."""
NEWEST: Final = VERSIONS[-1]
SINCE: Final = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""In which version a verb came; the others were there before all of these."""


def is_since(version: str, first: str) -> bool:
    """Whether a version that is known isn't older than `first`."""
    return VERSIONS.index(version) >= VERSIONS.index(first)
