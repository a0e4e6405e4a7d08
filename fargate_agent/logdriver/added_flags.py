"""Flags of loggers that no option stands for: what only the agent knows."""

import json
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.wire.log_options import DRIVER_OPTIONS, Kind

AddFlags = Callable[[TaskPlan, ContainerPlan, Path], Mapping[str, str]]
"""The path is that of the socket on which loggers ask the agent."""

_PATTERNS: Final = {
    option.name for option in DRIVER_OPTIONS["awslogs"].options if option.kind is Kind.RE2
}


def _render_re2_flags() -> Mapping[str, str]:
    """Say where RE2 is, and for which interpreter.

    Loggers run without packages, by /usr/bin/python3, which may have another version.
    """
    found = find_spec("re2")
    if found is None or found.origin is None:
        return {}
    return {
        "awslogs-packages": str(Path(found.origin).parents[1]),
        "awslogs-python": sys.executable,
    }


_RE2_FLAGS: Final = _render_re2_flags()


def _add_awslogs(task: TaskPlan, container: ContainerPlan, desk: Path) -> Mapping[str, str]:
    """Source: ECS developer guide, "Send Amazon ECS logs to CloudWatch", awslogs-stream-prefix."""
    prefix = container.log.options.get("awslogs-stream-prefix")
    stream = f"{prefix}/{container.name}/{task.id}" if prefix else container.id
    return {
        "awslogs-stream": stream,
        "awslogs-credentials-endpoint": f"unix://{desk}" if task.execution_role else "",
        **(_RE2_FLAGS if container.log.options.keys() & _PATTERNS else {}),
    }


def _add_splunk(_task: TaskPlan, container: ContainerPlan, desk: Path) -> Mapping[str, str]:
    """The token never stands on a command line; the logger asks for it."""
    return {**render_attributes(container), "splunk-token-endpoint": f"unix://{desk}"}


def add_attributes(_task: TaskPlan, container: ContainerPlan, _desk: Path) -> Mapping[str, str]:
    """Tell of the container only."""
    return render_attributes(container)


def render_attributes(container: ContainerPlan) -> Mapping[str, str]:
    """Tell of the container what its tag and its attributes are made of, and no more than that.

    A regular expression is for the logger: one that takes for ever would stop the agent. Variables
    are told by name only, since whoever may list processes reads it; the logger gets their values
    from where runC does.
    """
    options, flags = container.log.options, {"container-image-name": container.image}
    if labels := _choose("labels", container.labels, options):
        flags["container-labels"] = json.dumps(labels)
    if env := _choose("env", container.environment, options).keys() - container.secrets.keys():
        flags["container-env-names"] = json.dumps(sorted(env))
    return flags


def _choose(kind: str, values: Mapping[str, str], options: Mapping[str, str]) -> Mapping[str, str]:
    """Return those that a logger may need: all, if it is to search them."""
    if options.get(f"{kind}-regex"):
        return values
    names = options.get(kind, "").split(",")
    return {name: value for name, value in values.items() if name in names}


ADDED_FLAGS: Final[Mapping[str, AddFlags]] = {"awslogs": _add_awslogs, "splunk": _add_splunk}
"""By the driver; those of the others are `add_attributes`."""
