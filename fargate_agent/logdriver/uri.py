"""How a logger is named to containerd, and what all log drivers have in common."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan
from fargate_agent.wire.log_options import MAX_BUFFER_SIZE, MODE, DriverOptions


def render_uri(program: Path, flags: Mapping[str, str]) -> str:
    """Return the log URI that makes the shim start a program with these flags.

    The shim turns each pair of the URI's query into two arguments, in any order; one without a
    value is as good as none. Source: containerd, pkg/process/io_util.go.
    """
    query = urlencode({f"--{name}": value for name, value in flags.items() if value})
    return f"binary://{quote(str(program))}?{query}"


def name_flags(driver: DriverOptions, options: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a logger is told of options, by the names of its flags.

    Secrets are left out, and options of every driver: what a logger is told of these is decided
    elsewhere.
    """
    names = {option.name: option.flag_name for option in driver.options if not option.secret}
    return {flag: value for name, value in options.items() if (flag := names.get(name)) is not None}


def check_options(container: ContainerPlan, driver: DriverOptions) -> None:
    """Return if a driver takes all options of a container, in Docker's words if it doesn't.

    Raises:
        ResourceInitializationError: one is unknown, or one of those that every driver has is wrong.
    """
    options, names = container.log.options, driver.names
    for name in options:
        if name not in names:
            raise refuse(
                container, f"unknown log opt '{name}' for {container.log.driver} log driver"
            )
    mode, size = options.get(MODE.name), options.get(MAX_BUFFER_SIZE.name)
    if mode is not None and not MODE.takes(mode):
        raise refuse(container, f"logger: logging mode not supported: {mode}")
    if size is not None and not MAX_BUFFER_SIZE.takes(size):
        raise refuse(container, f"error parsing option max-buffer-size: invalid size: '{size}'")


def refuse(container: ContainerPlan, why: str) -> ResourceInitializationError:
    """Return the error of a container whose log driver can't be as it should."""
    return ResourceInitializationError(
        f"failed to initialize logging driver: {why}", container=container.name
    )
