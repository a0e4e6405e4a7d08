"""Rules about where the output of containers goes."""

from collections.abc import Set
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.rules.secrets import NO_EXECUTION_ROLE, check_source
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.log_options import (
    COMMON_OPTIONS,
    DRIVER_OPTIONS,
    MAX_ROUTER_BUFFER,
    ROUTER_BUFFER,
    LogOption,
)

NOT_ON_FARGATE: Final = frozenset(
    option.name for option in DRIVER_OPTIONS["awslogs"].options if not option.on_fargate
)
"""What Docker's driver has besides; taken where it isn't for Fargate. Source: moby, awslogs."""

_CHECKED: Final = (*COMMON_OPTIONS, ROUTER_BUFFER)
"""Options whose values are checked, whatever the driver."""

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
    if missing := [name for name in _required_by(driver) if name not in given]:
        raise client_error(f"Log driver {driver} requires options: {', '.join(missing)}")
    if driver == "awslogs":
        refuse_awslogs_options(given - DRIVER_OPTIONS["awslogs"].names)
    for option in _CHECKED:
        if option.name in options and not option.takes(options[option.name]):  # unverified
            raise _invalid(driver, option)
    if int(options.get(ROUTER_BUFFER.name, 0)) > MAX_ROUTER_BUFFER:  # unverified
        raise _invalid(driver, ROUTER_BUFFER)
    for secret in secrets:
        if "executionRoleArn" not in draft.request:  # unverified
            raise client_error(NO_EXECUTION_ROLE)
        check_source(secret, draft.account)


def _required_by(driver: str) -> tuple[str, ...]:
    """Source: ECS API, LogConfiguration.options; Docker, "Splunk logging driver"."""
    known = DRIVER_OPTIONS.get(driver)
    return known.required if known is not None and known.on_fargate else ()


def _invalid(driver: str, option: LogOption) -> ApiError:
    return client_error(f"Log driver {driver} has an invalid value for option: {option.name}")


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
