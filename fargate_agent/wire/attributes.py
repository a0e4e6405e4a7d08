"""The attributes by which an agent says what it can do, and a control plane asks for it.

Source: amazon-ecs-agent, agent/app/agent_capability.go; `fargate.capability…` are ours.
"""

from dataclasses import dataclass
from typing import Final

ARCHITECTURE: Final = "ecs.cpu-architecture"
"""Its value is `x86_64` or `arm64`."""
DOCKER_PLUGIN: Final = "ecs.capability.docker-plugin."
"""Before the name of a driver of Docker volumes."""
EBS_FILE_SYSTEM: Final = "fargate.capability.ebs-file-system."
"""Before the type of a file system that EBS volumes can have."""
EBS_VOLUMES: Final = "ecs.capability.storage.ebs-task-volume-attach"
EFS: Final = "ecs.capability.efs"
EFS_AUTHORIZATION: Final = "ecs.capability.efsAuth"
"""Access points and IAM, or what stands for them."""
EMULATES: Final = "fargate.capability.cpu-emulation."
"""Before the name of an architecture whose programs the machine runs although it isn't its own."""
CNI_NETWORK: Final = "fargate.capability.task-eni.cni."
"""Before the name of a network of CNI plugins."""
CONTAINER_FILES: Final = "fargate.capability.container-files"
CONTAINER_HEALTH: Final = "ecs.capability.container-health-check"
CONTAINER_INIT: Final = "fargate.capability.container-init"
CONTAINER_RESTARTS: Final = "ecs.capability.container-restart-policy"
CONTAINER_SHM: Final = "fargate.capability.container-shared-memory-size"
CONTAINER_STDIN: Final = "fargate.capability.container-stdin"
CONTAINER_SYSCTLS: Final = "fargate.capability.container-system-controls"
EPHEMERAL_STORAGE: Final = "fargate.capability.ephemeral-storage"
"""Of an agent that gives a task the ephemeral volume that it asks for."""
FAULT_INJECTION: Final = "ecs.capability.fault-injection"
"""Of a machine that can inject every fault."""
FIRELENS: Final = "ecs.capability.firelens."
"""Before the type of a log router."""
HOST_VOLUMES: Final = "fargate.capability.host-volumes"
"""Before a path of the machine of which, and of what is below it, tasks may have volumes."""
IPV6: Final = "fargate.capability.task-eni.ipv6"
LOG_DRIVER: Final = "com.amazonaws.ecs.capability.logging-driver."
"""Before the name of a log driver."""
MACVLAN_PARENT: Final = "fargate.capability.task-eni.macvlan."
"""Before the name of a NIC that macvlan ENIs can hang on."""
NIC: Final = "fargate.capability.task-eni.nic."
"""Before the MAC, with hyphens, of a NIC that a task can have for itself."""
SECURITY_GROUPS: Final = "fargate.capability.security-groups"
"""Of an agent that enforces them."""
PID_SHARING: Final = "ecs.capability.pid-ipc-namespace-sharing"
TASK_ENI: Final = "ecs.capability.task-eni"
"""Every agent that says what it can do has this one."""
VLAN_TRUNK: Final = "fargate.capability.task-eni.vlan."
"""Before the name, or the MAC with hyphens, of a NIC that VLANs of tasks can hang on."""


@dataclass(frozen=True, slots=True, order=True)
class Attribute:
    """One attribute; most say all by their name."""

    name: str
    value: str = ""

    def render(self) -> dict[str, str]:
        """Return it as RegisterContainerInstance takes it."""
        return {"name": self.name, **({"value": self.value} if self.value else {})}


def name_mac(mac: str) -> str:
    """Return a MAC as names of attributes have it, which have no colons."""
    return mac.replace(":", "-")
