"""What this machine can do for tasks, as attributes of its container instance.

Names are those of the ECS agent; what it has no word for is under `fargate.capability`. Only what
is so now is said, so they are read again from time to time: a NIC may come or go.

Source: amazon-ecs-agent, agent/app/agent_capability.go.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.image.platform import read_machine
from fargate_agent.wire.attributes import (
    ARCHITECTURE,
    EMULATES,
    FIRELENS,
    IPV6,
    LOG_DRIVER,
    MACVLAN_PARENT,
    TASK_ENI,
)

_ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "arm64"}
"""By the name that images have for them."""
ALWAYS: Final = (
    "ecs.capability.container-ordering",
    "ecs.capability.full-sync",
    "ecs.capability.secrets.asm.bootstrap.log-driver",
    "ecs.capability.secrets.ssm.bootstrap.log-driver",
    TASK_ENI,
)
CPU_AND_MEMORY: Final = "ecs.capability.task-cpu-mem-limit"
MAX_PARENTS: Final = 100
"""NICs that are named."""

_ETHERNET: Final = "1"
"""Source: Linux, if_arp.h, ARPHRD_ETHER."""
_OURS: Final = re.compile(r"fg[0-9a-f]{4}[a-z].+")
"""Interfaces of agents. Source: `network.names`."""
_FIRELENS_DRIVER: Final = "awsfirelens"
_JOURNALD: Final = "journald"


@dataclass(frozen=True, slots=True, order=True)
class Attribute:
    """One attribute; most say all by their name."""

    name: str
    value: str = ""

    def render(self) -> dict[str, str]:
        """Return it as RegisterContainerInstance takes it."""
        return {"name": self.name, **({"value": self.value} if self.value else {})}


def read_attributes(log_drivers: Collection[str], root: Path = Path("/")) -> tuple[Attribute, ...]:
    """Return what an agent with these log drivers can do on the machine; blocks.

    Example:
        >>> [a.value for a in read_attributes(()) if a.name == "ecs.os-type"]
        ['linux']
    """
    found = [
        Attribute("ecs.os-type", "linux"),
        *map(Attribute, ALWAYS),
        *_read_architectures(root),
        *_read_log_drivers(log_drivers, root),
        *_read_network(root),
    ]
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


def _read_log_drivers(names: Collection[str], root: Path) -> Iterator[Attribute]:
    for name in names:
        if name == _FIRELENS_DRIVER:
            yield Attribute(f"{FIRELENS}fluentbit")
            yield Attribute(f"{FIRELENS}fluentd")
        elif name == _JOURNALD and not (root / "run/systemd/journal/socket").exists():
            continue
        yield Attribute(f"{LOG_DRIVER}{name}")


def _read_network(root: Path) -> Iterator[Attribute]:
    if (root / "proc/net/if_inet6").exists():
        yield Attribute(IPV6)
    parents = sorted(
        link.name
        for link in (root / "sys/class/net").glob("*")
        if not _OURS.fullmatch(link.name) and _read(link / "type") == _ETHERNET
    )
    for name in parents[:MAX_PARENTS]:
        yield Attribute(f"{MACVLAN_PARENT}{name}")


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
