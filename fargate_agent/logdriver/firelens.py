"""Output that goes to the router of its own task, by the Forward protocol over a unix socket."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fargate_agent.drivers import LogDriver
from fargate_agent.logdriver.added_flags import add_attributes
from fargate_agent.logdriver.logger import LoggerDriver, LoggerSettings
from fargate_agent.logdriver.uri import name_flags, refuse
from fargate_agent.plan import ContainerPlan, LogPlan, TaskPlan
from fargate_agent.wire.attributes import FIRELENS, LOG_DRIVER, Attribute
from fargate_agent.wire.log_options import COMMON_NAMES, DRIVER_OPTIONS, ROUTER_BUFFER

DEFAULT_BUFFER_BYTES: Final = 10 * 1024 * 1024
"""Of every driver; see `logger.DEFAULT_BUFFER`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirelensDriver(LogDriver):
    """The driver `fluentd` with options of its own; those of the container are for the router.

    Source: amazon-ecs-agent, agent/engine/docker_task_engine_linux.go, `getFirelensLogConfig`.
    """

    fluentd: LoggerDriver

    def uri(self, task: TaskPlan, container: ContainerPlan) -> str:
        if task.firelens is None:
            raise refuse(container, "the task has no firelens container")
        options = {
            "fluentd-address": f"unix://{task.firelens.socket}",
            "fluentd-async": "true",
            # fluentd's `unix` gives no acknowledgements, and a router that is gone never comes back
            "fluentd-request-ack": "false",
            "fluentd-sub-second-precision": "true",
            "tag": f"{container.name}-firelens-{task.id}",
            **name_flags(DRIVER_OPTIONS["awsfirelens"], container.log.options),
            **_plan_bytes(container.log.options.get(ROUTER_BUFFER.name, "")),
            **{
                name: value for name, value in container.log.options.items() if name in COMMON_NAMES
            },
        }
        log = LogPlan(driver="fluentd", options=options)
        return self.fluentd.uri(task, replace(container, log=log))

    def read_attributes(self, name: str, _root: Path) -> Iterable[Attribute]:
        return map(Attribute, (LOG_DRIVER + name, FIRELENS + "fluentbit", FIRELENS + "fluentd"))


def make_firelens_driver(settings: LoggerSettings) -> FirelensDriver:
    """Make the driver.

    The router's socket belongs to whom the router runs as, so the logger stays root; its path is
    the agent's word, not the task definition's. It needs no network: containers are made without
    waiting for that of the task.
    """
    return FirelensDriver(
        fluentd=LoggerDriver(
            options=replace(DRIVER_OPTIONS["fluentd"], in_netns=False),
            add_flags=add_attributes,
            settings=replace(settings, user=None, host_paths=(Path("/"),)),
            needs_network=False,
            defaults={},
        )
    )


def _plan_bytes(limit: str) -> Mapping[str, str]:
    """ECS counts lines, and its users set bytes: a buffer has room for as many of either."""
    bytes_too = limit.isdecimal() and int(limit) > DEFAULT_BUFFER_BYTES
    return {"max-buffer-size": limit} if bytes_too else {}
