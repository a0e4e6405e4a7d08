"""Which directories of this machine tasks may have as volumes (`host.sourcePath`); pure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SETTING: Final = "host_volume_paths"

ALWAYS_GUARDED: Final = tuple(map(Path, ("/dev", "/proc", "/run", "/sys")))
"""Of these an operator has to name what tasks may have, or what is above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPaths:
    """What an operator lets tasks have."""

    allowed: tuple[Path, ...] = ()
    """These, and what is below them."""
    guarded: tuple[Path, ...] = ALWAYS_GUARDED
    """What is here is allowed only by a path that isn't above it."""

    def find_prefix(self, path: Path) -> Path | None:
        """Return the path of the setting that allows another one; None: nothing does.

        Both are absolute, and neither has a part `..`.

        Example:
            >>> HostPaths(allowed=(Path("/srv"),)).find_prefix(Path("/srv/code"))
            PosixPath('/srv')
        """
        above = [one for one in self.allowed if path.is_relative_to(one)]
        for guarded in self.guarded:
            if path.is_relative_to(guarded):
                above = [one for one in above if one.is_relative_to(guarded)]
            elif guarded.is_relative_to(path):
                above = [one for one in above if one == path]
        return max(above, key=lambda one: len(one.parts), default=None)

    def explain(self, path: Path) -> str:
        """Say why a path isn't allowed."""
        if any(path.is_relative_to(one) for one in self.allowed):
            return (
                f"host.sourcePath {path} holds a part of the system or of the agent, which has to "
                f"be named itself in the agent's setting {SETTING}"
            )
        return f"host.sourcePath {path} is not below a path of the agent's setting {SETTING}"
