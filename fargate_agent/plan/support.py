"""What this agent doesn't do yet. A task that needs it is refused, never run without it."""

from collections.abc import Mapping
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.wire.messages import ContainerMessage, TaskMessage, Volume

_UNSUPPORTED_OF_CONTAINER: Final[Mapping[str, str]] = {
    "health_check": "healthCheck",
    "secrets": "secrets",
    "environment_files": "environmentFiles",
    "restart_policy": "restartPolicy",
    "repository_credentials": "repositoryCredentials",
    "system_controls": "systemControls",
}


def refuse_unsupported(message: TaskMessage) -> None:
    """Return if the task can be run here.

    Raises:
        ResourceInitializationError: it can't; the text names the field.
    """
    if not message.containers:
        raise ResourceInitializationError("the task has no containers")
    if message.pid_mode is not None:
        raise ResourceInitializationError(f"pidMode '{message.pid_mode}' is not supported here")
    names = [container.name for container in message.containers]
    if len(set(names)) != len(names):
        raise ResourceInitializationError("two containers of the task have the same name")
    for container in message.containers:
        _refuse_unsupported_of(container)
    for volume in message.volumes:
        _refuse_unsupported_volume(volume)


def _refuse_unsupported_of(container: ContainerMessage) -> None:
    for attribute, name in _UNSUPPORTED_OF_CONTAINER.items():
        if getattr(container, attribute):
            raise ResourceInitializationError(
                f"container '{container.name}': {name} is not supported here",
                container=container.name,
            )
    if container.linux_parameters.init_process_enabled:
        raise ResourceInitializationError(
            f"container '{container.name}': initProcessEnabled is not supported here",
            container=container.name,
        )


def _refuse_unsupported_volume(volume: Volume) -> None:
    if (volume.host or {}).get("sourcePath"):
        raise ResourceInitializationError(
            f"volume '{volume.name}': a directory of the host can't be mounted"
        )
    if (
        volume.efs_volume_configuration is not None
        or volume.docker_volume_configuration is not None
        or volume.s3files_volume_configuration is not None
        or volume.configured_at_launch
    ):
        raise ResourceInitializationError(
            f"volume '{volume.name}': only scratch volumes are supported here"
        )
