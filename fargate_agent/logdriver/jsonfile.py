"""The local copy of a container's output and nothing else, for containers that name no driver."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.drivers import LogDriver
from fargate_agent.logdriver.added_flags import render_attributes
from fargate_agent.logdriver.uri import check_options, name_flags, refuse, render_uri
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.wire.attributes import Attribute
from fargate_agent.wire.log_options import DRIVER_OPTIONS

_OPTIONS: Final = DRIVER_OPTIONS["json-file"]
_BOOLEANS: Final = ("1", "t", "true", "0", "f", "false")

_SIZE: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})? ?[kmgt]?b?", re.IGNORECASE)
"""Units are decimal. Source: docker/go-units, `FromHumanSize`."""
_COUNT: Final = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonFileDriver(LogDriver):
    """Writes output to `log_path` of the container, and rotates the file.

    There is nothing that could keep it waiting, so `mode` and `max-buffer-size` change nothing.
    """

    program: Path
    """`shim-loggers/json-file`; absolute."""
    max_size: str
    """When a file is full, e.g. `10m`, unless the task definition says otherwise."""
    max_file: int
    """How many files are kept, the one that is written to included."""

    def uri(self, task: TaskPlan, container: ContainerPlan) -> str:
        options = container.log.options
        check_options(container, _OPTIONS)
        if wrong := _find_wrong_value(options):
            raise refuse(container, wrong)
        told = name_flags(_OPTIONS, options)
        return self.render(container, {**told, **render_attributes(container)})

    def render(self, container: ContainerPlan, options: Mapping[str, str]) -> str:
        """Return the log URI for options that are right."""
        flags = {
            "log-path": str(container.log_path),
            "fault-path": str(container.log_fault_path),
            "container-id": container.id,
            "container-name": container.name,
            "max-size": self.max_size,
            "max-file": str(self.max_file),
            **options,
        }
        return render_uri(self.program, flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLogsDriver(LogDriver):
    """Keeps the local copy in the place of a destination that this machine does without.

    What the destination's own driver would refuse is refused.
    """

    replaced: LogDriver
    copy: JsonFileDriver

    def uri(self, task: TaskPlan, container: ContainerPlan) -> str:
        self.replaced.uri(task, container)
        return self.copy.render(container, {})

    def read_attributes(self, name: str, root: Path) -> Iterable[Attribute]:
        return self.replaced.read_attributes(name, root)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoneDriver(LogDriver):
    """Sends output nowhere. Docker doesn't look at the options of this driver either."""

    copy: JsonFileDriver | None
    """Keeps the local copy; None throws output away."""

    def uri(self, task: TaskPlan, container: ContainerPlan) -> str | None:
        if self.copy is not None:
            return self.copy.render(container, {})
        # a terminal needs somebody who reads from it
        return "/dev/null" if container.terminal else None


def _find_wrong_value(options: Mapping[str, str]) -> str | None:
    """Say which option is wrong, in Docker's words where it has some."""
    size, count = options.get("max-size", "1"), options.get("max-file", "1")
    if not _COUNT.fullmatch(count):
        return f"max-file must be a number from 1 to 9999, not '{count}'"
    if not (_SIZE.fullmatch(size) and re.search("[1-9]", size)):
        return f"invalid size: '{size}'"
    compress = options.get("compress", "false")
    if compress.lower() not in _BOOLEANS:
        return f'strconv.ParseBool: parsing "{compress}": invalid syntax'
    return None
