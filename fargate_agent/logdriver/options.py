"""What a task definition may say to each log driver that has a destination.

Names are those of Docker and ECS. The logger is told most of them by flags of the same name.

Source: ECS API, LogConfiguration; moby, daemon/logger/*, `ValidateLogOpt`.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final

from fargate_agent.plan import SECRET_OPTIONS, TMDS_ADDRESS, ContainerPlan, TaskPlan

ATTRIBUTES: Final = ("labels", "labels-regex", "env", "env-regex")
"""Which labels and variables of the container go along with its output."""

_PATTERNS: Final = {"awslogs-datetime-format", "awslogs-multiline-pattern"}
"""Options that a logger needs RE2 for."""


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

Add = Callable[[TaskPlan, ContainerPlan], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverOptions:
    """The options of one driver, and the flags of its logger."""

    known: tuple[str, ...]
    required: tuple[str, ...] = ()
    secrets: frozenset[str] = frozenset()
    """Known options that are secrets; the logger fetches their values itself."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Flags that aren't named as the option is."""
    add: Add = lambda task, container: {}
    """Flags that stand for no option, or in place of some."""
    in_netns: bool = True
    """The destination is reached through the interface of the task."""
    files: tuple[str, ...] = ()
    """Known options that name a file of this machine, which the logger reads."""
    addresses: tuple[str, ...] = ()
    """Known options that may name a unix socket of this machine."""

    def find_paths(self, options: Mapping[str, str]) -> Iterator[tuple[str, PurePosixPath]]:
        """Yield the options that reach into this machine, and where to."""
        for name, value in options.items():
            scheme, found, rest = value.partition("://")
            if name in self.files and value:
                yield name, PurePosixPath(value)
            elif name in self.addresses and found and scheme.startswith("unix"):
                yield name, PurePosixPath(rest)


def _add_awslogs(task: TaskPlan, container: ContainerPlan) -> Mapping[str, str]:
    """Source: ECS developer guide, "Send Amazon ECS logs to CloudWatch", awslogs-stream-prefix."""
    prefix = container.log.options.get("awslogs-stream-prefix")
    stream = f"{prefix}/{container.name}/{task.id}" if prefix else container.id
    role = task.execution_role
    credentials = f"/v2/credentials/{role.credentials_id}" if role else ""
    return {
        "awslogs-stream": stream,
        "awslogs-stream-prefix": "",
        "awslogs-credentials-endpoint": credentials,
        **(_RE2_FLAGS if container.log.options.keys() & _PATTERNS else {}),
    }


def _add_splunk(task: TaskPlan, container: ContainerPlan) -> Mapping[str, str]:
    """The token never stands on a command line; the logger asks for it."""
    endpoint = f"http://{TMDS_ADDRESS}/v2/splunk-token/{container.log.secrets_id}"
    return {**add_attributes(task, container), "splunk-token-endpoint": endpoint}


def add_attributes(_task: TaskPlan, container: ContainerPlan) -> Mapping[str, str]:
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


OPTIONS: Final[Mapping[str, DriverOptions]] = {
    "awslogs": DriverOptions(
        known=(
            "awslogs-create-group",
            "awslogs-create-stream",
            "awslogs-datetime-format",
            "awslogs-endpoint",
            "awslogs-format",
            "awslogs-group",
            "awslogs-multiline-pattern",
            "awslogs-region",
            "awslogs-stream-prefix",
        ),
        required=("awslogs-region", "awslogs-group"),
        add=_add_awslogs,
    ),
    "splunk": DriverOptions(
        known=(
            "splunk-caname",
            "splunk-capath",
            "splunk-format",
            "splunk-gzip",
            "splunk-gzip-level",
            "splunk-index",
            "splunk-index-acknowledgment",
            "splunk-insecureskipverify",
            "splunk-source",
            "splunk-sourcetype",
            "splunk-url",
            "splunk-verify-connection",
            "tag",
            *ATTRIBUTES,
            "splunk-token",
        ),
        required=("splunk-url", "splunk-token"),
        secrets=SECRET_OPTIONS["splunk"],
        renamed={"tag": "splunk-tag"},
        add=_add_splunk,
        files=("splunk-capath",),
    ),
    "fluentd": DriverOptions(
        known=(
            "fluentd-address",
            "fluentd-async",
            "fluentd-async-reconnect-interval",
            "fluentd-buffer-limit",
            "fluentd-capath",
            "fluentd-request-ack",
            "fluentd-sub-second-precision",
            "fluentd-write-timeout",
            "tag",
        ),
        renamed={"tag": "fluentd-tag"},
        add=add_attributes,
        files=("fluentd-capath",),
        addresses=("fluentd-address",),
    ),
    "syslog": DriverOptions(
        known=(
            "syslog-address",
            "syslog-facility",
            "syslog-format",
            "syslog-tls-ca-cert",
            "syslog-tls-cert",
            "syslog-tls-key",
            "syslog-tls-skip-verify",
            "tag",
            *ATTRIBUTES,
        ),
        add=add_attributes,
        files=("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key"),
        addresses=("syslog-address",),
    ),
    "gelf": DriverOptions(
        known=(
            "gelf-address",
            "gelf-compression-level",
            "gelf-compression-type",
            "gelf-tcp-max-reconnect",
            "gelf-tcp-reconnect-delay",
            "tag",
            *ATTRIBUTES,
        ),
        required=("gelf-address",),
        add=add_attributes,
    ),
    "journald": DriverOptions(known=("tag", *ATTRIBUTES), add=add_attributes, in_netns=False),
}
"""By the name of the driver."""
