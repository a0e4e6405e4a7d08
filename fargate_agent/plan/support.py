"""What this agent doesn't do. A task that asks for it is refused, never run without it.

One refusal names all of it, so that nobody has to run a task again to find the next.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from fargate_agent.errors import MAX_REASON_CHARS, ResourceInitializationError
from fargate_agent.wire.containers import (
    ContainerMessage,
    PortMapping,
    Volume,
)
from fargate_agent.wire.message import Message
from fargate_agent.wire.messages import TaskMessage
from fargate_agent.wire.system_controls import is_system_control, loosens_network
from fargate_agent.wire.unsupported import (
    UnsupportedByContainers,
    UnsupportedByDockerVolumes,
    UnsupportedByLinux,
    UnsupportedByTasks,
    UnsupportedByVolumes,
    asks_for_something,
)

_NOT_SUPPORTED: Final = "not supported here"
_MAX_CHARS: Final = MAX_REASON_CHARS - len("ResourceInitializationError: ")


def refuse_unsupported(message: TaskMessage) -> None:
    """Return if the task can be run here.

    Raises:
        ResourceInitializationError: it can't; the text names every member that it asks for and
            that isn't supported, and the container or volume that has it.
    """
    if not message.containers:
        raise ResourceInitializationError("the task has no containers")
    names = [container.name for container in message.containers]
    if len(set(names)) != len(names):
        raise ResourceInitializationError("two containers of the task have the same name")
    volumes = [volume.name for volume in message.volumes]
    if len(set(volumes)) != len(volumes):
        raise ResourceInitializationError("two volumes of the task have the same name")
    found = {
        "": list(_task(message)),
        **{f"container '{c.name}': ": list(_container(c)) for c in message.containers},
        **{f"volume '{volume.name}': ": list(_volume(volume)) for volume in message.volumes},
    }
    if any(found.values()):
        raise ResourceInitializationError(_render(found))


def _render(found: dict[str, list[str]]) -> str:
    """Name what isn't supported; where, only as far as a reason has room for that."""
    parts = (f"{owner}{', '.join(members)}" for owner, members in found.items() if members)
    text = f"{_NOT_SUPPORTED}: {'; '.join(parts)}"
    if len(text) <= _MAX_CHARS:
        return text
    members = dict.fromkeys(member for some in found.values() for member in some)
    return f"{_NOT_SUPPORTED}, in several places: {', '.join(members)}"


def _task(message: TaskMessage) -> Iterator[str]:
    yield from _asked_for(message, UnsupportedByTasks)
    if message.pid_mode and message.pid_mode != "task":
        yield f"pidMode {message.pid_mode}"


def _container(container: ContainerMessage) -> Iterator[str]:
    yield from _asked_for(container, UnsupportedByContainers)
    for member in _asked_for(container.linux_parameters, UnsupportedByLinux):
        yield f"linuxParameters.{member}"
    for control in container.system_controls:
        if not is_system_control(control.namespace) or loosens_network(
            control.namespace, control.value
        ):
            yield f"systemControls with {control.namespace}"
    if any(map(_maps_port, container.port_mappings)):
        yield "portMappings.hostPort other than containerPort"


def _volume(volume: Volume) -> Iterator[str]:
    yield from _asked_for(volume, UnsupportedByVolumes)
    if volume.configured_at_launch and volume.ebs is None:
        yield "configuredAtLaunch without a configuration"
    if (docker := volume.docker_volume_configuration) is not None:
        for member in _asked_for(docker, UnsupportedByDockerVolumes):
            yield f"dockerVolumeConfiguration.{member}"
        if docker.driver != "local":
            yield f"dockerVolumeConfiguration.driver {docker.driver}"


def _asked_for(message: Message, unsupported: type[Message]) -> Iterable[str]:
    """Give the names of members that ask for something."""
    for name, field in unsupported.model_fields.items():
        if asks_for_something(getattr(message, name)):
            yield str(field.alias)


def _maps_port(mapping: PortMapping) -> bool:
    """Whether a port of the host is wanted, which a task with an ENI of its own doesn't have."""
    return mapping.host_port not in {None, 0, mapping.container_port}
