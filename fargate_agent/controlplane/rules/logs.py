"""Rules about where the output of containers goes."""

import re
from collections.abc import Set
from typing import Final

from fargate_agent.controlplane.errors import client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.rules.secrets import NO_EXECUTION_ROLE, check_source
from fargate_agent.controlplane.validate import Json

AWSLOGS_OPTIONS: Final = frozenset(
    {
        "awslogs-create-group",
        "awslogs-datetime-format",
        "awslogs-group",
        "awslogs-multiline-pattern",
        "awslogs-region",
        "awslogs-stream-prefix",
        "max-buffer-size",
        "mode",
    }
)
"""Source: ECS API, LogConfiguration.options."""
DOCKER_AWSLOGS_OPTIONS: Final = frozenset(
    {"awslogs-create-stream", "awslogs-endpoint", "awslogs-format"}
)
"""What Docker's driver has besides; taken where it isn't for Fargate. Source: moby, awslogs."""

_REQUIRED: Final = {
    "awslogs": ("awslogs-region", "awslogs-group"),
    "splunk": ("splunk-url", "splunk-token"),
}
"""Source: ECS API, LogConfiguration.options; Docker, "Splunk logging driver"."""

_ROUTER_BUFFER: Final = "log-driver-buffer-limit"
MAX_ROUTER_BUFFER_BYTES: Final = 536_870_912

_VALUES: Final = {
    "mode": re.compile("blocking|non-blocking"),
    "max-buffer-size": re.compile(
        r"[0-9]{1,12}(\.[0-9]{1,2})? ?([kmgtp]i?)?b?", re.IGNORECASE | re.ASCII
    ),
    _ROUTER_BUFFER: re.compile(r"[0-9]{1,9}", re.ASCII),
}
"""Source: ECS API, LogConfiguration.options; docker/go-units, `RAMInBytes`. So many digits as no
machine has bytes."""

_FIRELENS_OPTIONS: Final = {"enable-ecs-log-metadata", "config-file-type", "config-file-value"}
"""Source: ECS API, FirelensConfiguration.options."""


def check_containers(draft: Draft) -> None:
    """Raise if a log driver lacks an option, a secret or its router."""
    for container in draft.containers:
        if "logConfiguration" in container:
            _check_configuration(container["logConfiguration"], draft)
    routers = [c["firelensConfiguration"] for c in draft.containers if "firelensConfiguration" in c]
    if not routers and any(driver_of(container) == "awsfirelens" for container in draft.containers):
        raise client_error(
            "When awsfirelens log driver is specified in log configuration, a firelens "
            "configuration object must be configured in one of the containers."
        )
    if len(routers) > 1:  # unverified
        raise client_error("A task definition can have at most one firelens configuration.")
    for router in routers:
        _check_router(router.get("options", {}))


def driver_of(container: Json) -> str | None:
    """Return the log driver that a container names."""
    driver: str | None = container.get("logConfiguration", {}).get("logDriver")
    return driver


def refuse_awslogs_options(options: Set[str]) -> None:
    """Raise if there are any of these options."""
    if options:  # unverified
        names = ", ".join(sorted(options))
        raise client_error(f"Log driver awslogs disallows options: {names}")


def _check_configuration(configuration: Json, draft: Draft) -> None:
    driver, options = configuration["logDriver"], configuration.get("options", {})
    secrets = configuration.get("secretOptions", [])
    given = {*options, *(secret["name"] for secret in secrets)}
    if missing := [name for name in _REQUIRED.get(driver, ()) if name not in given]:
        raise client_error(f"Log driver {driver} requires options: {', '.join(missing)}")
    if driver == "awslogs":
        refuse_awslogs_options(given - AWSLOGS_OPTIONS - DOCKER_AWSLOGS_OPTIONS)
    for name, pattern in _VALUES.items():
        if name in options and not pattern.fullmatch(options[name]):  # unverified
            raise client_error(f"Log driver {driver} has an invalid value for option: {name}")
    if int(options.get(_ROUTER_BUFFER, 0)) > MAX_ROUTER_BUFFER_BYTES:  # unverified
        raise client_error(f"Log driver {driver} has an invalid value for option: {_ROUTER_BUFFER}")
    for secret in secrets:
        if "executionRoleArn" not in draft.request:  # unverified
            raise client_error(NO_EXECUTION_ROLE)
        check_source(secret, draft.account)


def _check_router(options: Json) -> None:
    unknown, kind = sorted(set(options) - _FIRELENS_OPTIONS), options.get("config-file-type")
    if unknown:  # unverified, as are those below
        raise client_error(f"Invalid FirelensConfiguration options: {', '.join(unknown)}")
    if options.get("enable-ecs-log-metadata", "true") not in {"true", "false"}:
        raise client_error("FirelensConfiguration enable-ecs-log-metadata must be true or false")
    if kind not in {None, "s3", "file"}:
        raise client_error("FirelensConfiguration config-file-type must be s3 or file")
    if (kind is None) != ("config-file-value" not in options):
        raise client_error(
            "FirelensConfiguration config-file-type and config-file-value must be given together"
        )
