"""How a logger is named to containerd, and what all log drivers have in common."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan

MODES: Final = ("blocking", "non-blocking")
COMMON_OPTIONS: Final = frozenset({"mode", "max-buffer-size"})
"""Of every driver. Source: moby, daemon/logger/factory.go."""

_BINARY_SIZE: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})? ?([kmgtp]i?)?b?", re.IGNORECASE)
"""Source: docker/go-units, `RAMInBytes`."""


def render_uri(program: Path, flags: Mapping[str, str]) -> str:
    """Return the log URI that makes the shim start a program with these flags.

    The shim turns each pair of the URI's query into two arguments, in any order; one without a
    value is as good as none. Source: containerd, pkg/process/io_util.go.
    """
    query = urlencode({f"--{name}": value for name, value in flags.items() if value})
    return f"binary://{quote(str(program))}?{query}"


def check_options(container: ContainerPlan, known: Collection[str]) -> None:
    """Return if a driver takes all options of a container, in Docker's words if it doesn't.

    Raises:
        ResourceInitializationError: one is unknown, or one of those that every driver has is wrong.
    """
    options = container.log.options
    for name in options:
        if name not in known and name not in COMMON_OPTIONS:
            raise refuse(
                container, f"unknown log opt '{name}' for {container.log.driver} log driver"
            )
    if options.get("mode", "blocking") not in MODES:
        raise refuse(container, f"logger: logging mode not supported: {options['mode']}")
    size = options.get("max-buffer-size")
    if size is not None and not _BINARY_SIZE.fullmatch(size):
        raise refuse(container, f"error parsing option max-buffer-size: invalid size: '{size}'")


def refuse(container: ContainerPlan, why: str) -> ResourceInitializationError:
    """Return the error of a container whose log driver can't be as it should."""
    return ResourceInitializationError(
        f"failed to initialize logging driver: {why}", container=container.name
    )
