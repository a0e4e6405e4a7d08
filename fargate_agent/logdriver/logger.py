"""The drivers that send output somewhere: all are `shim-loggers/logger` with other flags."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from fargate_agent.drivers import LogDriver, LoggerUser
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.logdriver.added_flags import AddFlags
from fargate_agent.logdriver.uri import check_options, name_flags, refuse, render_uri
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.wire.attributes import LOG_DRIVER, Attribute
from fargate_agent.wire.log_options import DriverOptions, Kind

DEFAULT_BUFFER: Final = "10m"
"""Source: ECS API, LogConfiguration.options, `max-buffer-size`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerSettings:
    """What an agent decides for all loggers of this kind."""

    program: Path
    """`shim-loggers/logger`; absolute."""
    mode: str
    """Whether a container waits for its logger, unless the task definition says it."""
    copy: Mapping[str, str]
    """Flags of the local copy; empty if none is kept."""
    user: LoggerUser | None
    """Whom they run as; None is root."""
    desk: Path
    """The socket on which they ask the agent for what no container may read."""
    host_paths: tuple[Path, ...]
    """Which files and sockets of this machine a task definition may name, or what is below them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerDriver(LogDriver):
    """Sends output to a destination, and keeps the local copy."""

    options: DriverOptions
    add_flags: AddFlags
    settings: LoggerSettings
    needs_network: bool
    defaults: Mapping[str, str]
    """Flags that a task definition may override."""

    def uri(self, task: TaskPlan, container: ContainerPlan) -> str:
        log = container.log
        check_options(container, self.options)
        self._check_secrets(container)
        self._check_paths(container)
        given = {**log.options, **log.plain_secrets, **log.secrets}
        for name in self.options.required:
            if not given.get(name):
                raise _refuse_arguments(container, f"{name} is required")
        return render_uri(
            self.settings.program,
            {
                "log-driver": log.driver,
                "container-id": container.id,
                "container-name": container.name,
                "fault-path": str(container.log_fault_path),
                **self.defaults,
                **name_flags(self.options, log.options),
                **self._render_mode(log.options),
                **self.add_flags(task, container, self.settings.desk),
                **self._render_copy(container),
                **self._render_user(),
                **(self._render_network(task) if self.options.in_netns else {}),
            },
        )

    def read_attributes(self, name: str, root: Path) -> Iterable[Attribute]:
        """Return nothing while the machine lacks the socket that output goes to."""
        socket = self.options.socket
        return () if socket and not (root / socket).exists() else (Attribute(LOG_DRIVER + name),)

    def _check_secrets(self, container: ContainerPlan) -> None:
        for name in container.log.secrets:
            if name not in self.options.secrets:
                raise refuse(
                    container,
                    f"log opt '{name}' of {container.log.driver} log driver can't be a secret here",
                )

    def _check_paths(self, container: ContainerPlan) -> None:
        """A logger may be root, and is not in the task's file system but in that of the machine."""
        for name, path in _find_paths(self.options, container.log.options):
            allowed = any(path.is_relative_to(one) for one in self.settings.host_paths)
            if not allowed or ".." in path.parts:
                why = f"'{path}' is not one of this machine's log_host_paths"
                raise refuse(container, f"log opt '{name}': {why}")

    def _render_mode(self, options: Mapping[str, str]) -> Mapping[str, str]:
        """Where the container waits, the default size of the buffer is left to the logger."""
        mode = options.get("mode", self.settings.mode)
        default = "" if mode == "blocking" else DEFAULT_BUFFER
        return {"mode": mode, "max-buffer-size": options.get("max-buffer-size", default)}

    def _render_copy(self, container: ContainerPlan) -> Mapping[str, str]:
        if not self.settings.copy:
            return {}
        return {"log-path": str(container.log_path), **self.settings.copy}

    def _render_user(self) -> Mapping[str, str]:
        user = self.settings.user
        return {} if user is None else {"uid": str(user.uid), "gid": str(user.gid)}

    def _render_network(self, task: TaskPlan) -> Mapping[str, str]:
        """Where the logger is to be, and how it resolves names: as the task's containers do."""
        return {
            "netns": str(task.netns),
            "dns-servers": ",".join(task.dns.servers),
            "dns-search": ",".join(task.dns.search),
        }


def _find_paths(
    driver: DriverOptions, options: Mapping[str, str]
) -> Iterator[tuple[str, PurePosixPath]]:
    """Yield the options that reach into this machine, and where to."""
    kinds = {option.name: option.kind for option in driver.options}
    for name, value in options.items():
        scheme, found, rest = value.partition("://")
        if kinds.get(name) is Kind.FILE and value:
            yield name, PurePosixPath(value)
        elif kinds.get(name) is Kind.ADDRESS and found and scheme.startswith("unix"):
            yield name, PurePosixPath(rest)


def _refuse_arguments(container: ContainerPlan, why: str) -> ResourceInitializationError:
    """Source: ECS developer guide, stopped task error messages; shim-loggers-for-containerd."""
    return ResourceInitializationError(
        f"failed to validate logger args: unable to get {container.log.driver} driver arguments: "
        f"{why} : exit status 1",
        container=container.name,
    )
