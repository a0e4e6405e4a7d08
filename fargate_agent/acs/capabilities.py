"""What this machine can do for tasks, as attributes of its container instance.

Names are those of the ECS agent; what it has no word for is under `fargate.capability`. Only what
is so now is said, so they are read again from time to time: a NIC may come or go.

Source: amazon-ecs-agent, agent/app/agent_capability.go.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from fargate_agent.drivers import EniDriver, LogDriver, VolumeDriver
from fargate_agent.image.platform import read_machine
from fargate_agent.network.faults.modules import can_impair
from fargate_agent.runtime.init import find_init
from fargate_agent.wire.attributes import (
    ARCHITECTURE,
    CONTAINER_FILES,
    CONTAINER_HEALTH,
    CONTAINER_INIT,
    CONTAINER_RESTARTS,
    CONTAINER_SHM,
    CONTAINER_STDIN,
    CONTAINER_SYSCTLS,
    EMULATES,
    EPHEMERAL_STORAGE,
    FAULT_INJECTION,
    IPV6,
    PID_SHARING,
    SECURITY_GROUPS,
    TASK_ENI,
    Attribute,
)

_ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "arm64"}
"""By the name that images have for them."""
ALWAYS: Final = (
    "com.amazonaws.ecs.capability.ecr-auth",
    CONTAINER_FILES,
    CONTAINER_HEALTH,
    "ecs.capability.container-ordering",
    CONTAINER_RESTARTS,
    CONTAINER_SHM,
    CONTAINER_STDIN,
    CONTAINER_SYSCTLS,
    "ecs.capability.execution-role-ecr-pull",
    EPHEMERAL_STORAGE,
    "ecs.capability.full-sync",
    "ecs.capability.private-registry-authentication.secretsmanager",
    "ecs.capability.secrets.asm.bootstrap.log-driver",
    "ecs.capability.secrets.ssm.bootstrap.log-driver",
    SECURITY_GROUPS,
    TASK_ENI,
)
CPU_AND_MEMORY: Final = "ecs.capability.task-cpu-mem-limit"


def read_attributes(
    enis: Iterable[EniDriver],
    logs: Mapping[str, LogDriver],
    volumes: Iterable[VolumeDriver] = (),
    root: Path = Path("/"),
) -> tuple[Attribute, ...]:
    """Return what an agent with these drivers can do on the machine; blocks.

    Example:
        >>> [a.value for a in read_attributes((), {}) if a.name == "ecs.os-type"]
        ['linux']
    """
    found = [
        Attribute("ecs.os-type", "linux"),
        *map(Attribute, ALWAYS),
        *_read_architectures(root),
        *(attribute for eni in enis for attribute in eni.read_attributes(root)),
        *(attribute for volume in volumes for attribute in volume.read_attributes(root)),
        *(one for name, driver in logs.items() for one in driver.read_attributes(name, root)),
    ]
    if (root / "proc/net/if_inet6").exists():
        found.append(Attribute(IPV6))
    if find_init() is not None:
        found += [Attribute(CONTAINER_INIT), Attribute(PID_SHARING)]
    if can_impair(root):
        found.append(Attribute(FAULT_INJECTION))
    if _has_limits(root):
        found.append(Attribute(CPU_AND_MEMORY))
    return tuple(sorted(found))


def _read_architectures(root: Path) -> Iterator[Attribute]:
    machine = read_machine(root / "proc")
    for architecture in machine.variants:
        name = _ARCHITECTURES.get(architecture)
        if name is not None and architecture == machine.architecture:
            yield Attribute(ARCHITECTURE, name)
        elif name is not None:
            yield Attribute(f"{EMULATES}{name}")


def _has_limits(root: Path) -> bool:
    """Whether the kernel bounds CPU and memory of control groups."""
    lines = (line.split() for line in _read(root / "proc/cgroups").splitlines())
    enabled = {line[0] for line in lines if line[-1] == "1"}
    unified = set(_read(root / "sys/fs/cgroup/cgroup.controllers").split())
    return {"cpu", "memory"} <= enabled | unified


def _read(path: Path) -> str:
    """Return a small file of the kernel; empty if it isn't there."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
