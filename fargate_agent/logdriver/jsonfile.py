"""The local copy of a container's output, for containers that name no log driver."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from fargate_agent.drivers import LogDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, TaskPlan

_SIZE: Final = re.compile(r"[0-9]+(\.[0-9]+)? ?[kmgt]?b?", re.IGNORECASE)
"""Units are decimal. Source: docker/go-units, `FromHumanSize`."""
_COUNT: Final = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonFileDriver(LogDriver):
    """Writes output to `log_path` of the container, and rotates the file.

    The shim turns each pair of the URI's query into two arguments, in any order. Source:
    containerd, pkg/process/io_util.go.
    """

    program: Path
    """`shim-loggers/json-file`; absolute."""
    max_size: str
    """When a file is full, e.g. `10m`, unless the task definition says otherwise."""
    max_file: int
    """How many files are kept, the one that is written to included."""

    def uri(self, task: TaskPlan, container: ContainerPlan) -> str:
        defaults = {"max-size": self.max_size, "max-file": str(self.max_file)}
        if wrong := _find_wrong_option(container.log.options, defaults):
            raise ResourceInitializationError(
                f"failed to initialize logging driver: {wrong}", container=container.name
            )
        flags = {
            "log-path": str(container.log_path),
            "container-id": container.id,
            "container-name": container.name,
            **defaults,
            **container.log.options,
        }
        query = urlencode({f"--{name}": value for name, value in flags.items()})
        return f"binary://{quote(str(self.program))}?{query}"


def _find_wrong_option(options: Mapping[str, str], known: Mapping[str, str]) -> str | None:
    """Say which option is wrong, in Docker's words where it has some."""
    for name, value in options.items():
        if name not in known:
            return f"unknown log opt '{name}' for json-file log driver"
        if name == "max-file" and not _COUNT.fullmatch(value):
            return f"max-file must be a number from 1 to 9999, not '{value}'"
        if name == "max-size" and not (_SIZE.fullmatch(value) and re.search("[1-9]", value)):
            return f"invalid size: '{value}'"
    return None
