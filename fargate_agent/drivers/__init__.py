"""The seams of the agent: what the task runner asks for, and nothing about how it is done.

Three rules hold for every driver:

* An `ensure`/`attach`/`start` that is repeated succeeds and changes nothing; so does a
  `release`/`detach`/`stop` of something already gone. A restarted agent depends on it.
* Only a `TaskError` leaves a driver. The error of the kernel or of containerd is its `__cause__`.
* What it holds of the agent's process, it closes in `__aexit__`. What belongs to a task stays: the
  next agent takes it over.

`composition` makes the drivers, and is the only module that names them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fargate_agent.drivers.images import (
    FindLogin,
    Image,
    ImageConfig,
    ImageStore,
    PullProgress,
    no_login,
)
from fargate_agent.drivers.lifecycle import Driver, Service, Sweeper
from fargate_agent.drivers.runtime import (
    ContainerUsage,
    ExecIo,
    ExitStatus,
    Runtime,
    TerminalSize,
)
from fargate_agent.drivers.security_groups import SecurityGroups
from fargate_agent.drivers.volumes import EphemeralStorage, StorageUse, VolumeDriver
from fargate_agent.drivers.vpc import VpcServices
from fargate_agent.plan import ContainerPlan, EniPlan, TaskPlan
from fargate_agent.wire.attributes import LOG_DRIVER, Attribute
from fargate_agent.wire.eni_kinds import EniKind
from fargate_agent.wire.volume_kinds import VolumeKind

__all__ = [
    "ContainerUsage",
    "Driver",
    "Drivers",
    "EniDriver",
    "EphemeralStorage",
    "ExecIo",
    "ExitStatus",
    "FindLogin",
    "Image",
    "ImageConfig",
    "ImageStore",
    "LogDriver",
    "LoggerUser",
    "MetadataEndpoint",
    "NetnsDriver",
    "PullProgress",
    "Runtime",
    "SecretStore",
    "SecurityGroups",
    "Service",
    "StorageUse",
    "Sweeper",
    "TerminalSize",
    "VolumeDriver",
    "VpcServices",
    "no_login",
]


class NetnsDriver(Driver, Protocol):
    """Makes network namespaces and takes them away. `netns` is the path it is mounted on."""

    async def ensure(self, netns: Path) -> None:
        """Return when the namespace exists and is complete.

        `lo` is up, `eth0` leads to the metadata endpoint, and instance metadata is black-holed.

        Raises:
            ResourceInitializationError: the kernel refused it.
        """
        ...

    async def release(self, netns: Path) -> None:
        """Take the namespace away; with it goes whatever interface is still inside."""
        ...


class EniDriver(Driver, Protocol):
    """Puts one kind of ENI into a network namespace, and takes it out again.

    Terms: `eni` is the plan of one interface; `netns` is the path of a namespace that exists.
    """

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        """Return when the interface is up, has its address, and the default route leads out.

        Raises:
            ResourceInitializationError: the parent is absent, or the kernel refused it.
        """
        ...

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        """Return if nobody else on the subnet has answered for the address since `attach`.

        Does not wait, and may be asked again: the later, the more it has heard.

        Raises:
            ResourceInitializationError: the address is in use.
        """
        ...

    async def update(self, eni: EniPlan, netns: Path) -> None:
        """Return when an interface that is attached is in the security groups of the plan.

        Flows that are open go on.

        Raises:
            ResourceInitializationError: the kernel refused it; it is in the groups of before.
        """
        ...

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        """Remove the interface, and what only it needed on the host."""
        ...

    def read_attributes(self, _root: Path) -> Iterable[Attribute]:
        """Return what the machine has that ENIs of this kind may ask for; blocks."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerUser:
    """Whom the programs that send output run as, once they are set up."""

    uid: int
    gid: int


class LogDriver(Driver, Protocol):
    """Says where a container's output goes; the program that sends it is started by the shim."""

    needs_network: bool = False
    """The program uses the network of the task at once, so containers are made after it."""

    def uri(self, task: TaskPlan, container: ContainerPlan) -> str | None:
        """Return the log URI that containerd is given; None throws output away.

        Raises:
            ResourceInitializationError: an option is missing or wrong.
        """
        ...

    def read_attributes(self, name: str, _root: Path) -> Iterable[Attribute]:
        """Return what the machine can do with this driver, which has that name; blocks."""
        return (Attribute(LOG_DRIVER + name),)


class SecretStore(Driver, Protocol):
    """Reads the values of secrets, as the execution role of a task."""

    async def ensure(self, task: TaskPlan) -> None:
        """Return when the loggers that are still to be started can ask for their secrets.

        What the containers that are still to be made refer to is being fetched from then on. The
        network of the task must be up.

        Raises:
            ResourceInitializationError: one could not be fetched.
        """
        ...

    async def settled(self, task: TaskPlan) -> None:
        """Return when all that the containers of a task refer to has been fetched.

        Raises:
            ResourceInitializationError: a value could not be fetched. That ends the task.
        """
        return

    async def complete(self, task: TaskPlan, container: ContainerPlan) -> ContainerPlan:
        """Return the container with what it is given by reference, as only its creation sees it.

        That is `environment`, with environment files and secrets, and `file_contents`. Each value
        is fetched once for a task, in whatever order its containers ask. The network of the task
        must be up, unless the container refers to nothing.

        Raises:
            ResourceInitializationError: a value could not be fetched. That ends the task.
        """
        ...

    def take(self, task: TaskPlan, secrets_id: str, option: str) -> str | None:
        """Return the secret of a log option, and forget it; None if there is none with that id."""
        del task, secrets_id, option
        return None

    async def registry_credentials(
        self, task: TaskPlan, container: ContainerPlan
    ) -> tuple[str, str] | None:
        """Return the user and password of `repositoryCredentials`; None if there are none.

        Raises:
            ResourceInitializationError: they could not be fetched.
        """
        ...

    async def release(self, task: TaskPlan) -> None:
        """Keep no secret and no credentials of a task."""
        ...


class MetadataEndpoint(Driver, Protocol):
    """Answers a task, and nobody else, on 169.254.170.2."""

    async def ensure(self, task: TaskPlan) -> None:
        """Return when the endpoint answers.

        Raises:
            ResourceInitializationError: the address can't be listened on.
        """
        ...

    async def release(self, task: TaskPlan) -> None:
        """Stop answering, and hold nothing of the network namespace any more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """The drivers one agent runs with; made in `composition.py`, nowhere else."""

    runtime: Runtime
    storage: EphemeralStorage
    netns: NetnsDriver
    security_groups: SecurityGroups
    enis: Mapping[EniKind, EniDriver]
    vpc: VpcServices
    metadata: MetadataEndpoint
    images: ImageStore
    logs: Mapping[str, LogDriver]
    """By the name used in the task definition, e.g. `awslogs`."""
    secrets: SecretStore
    volumes: Mapping[VolumeKind, VolumeDriver]

    def __iter__(self) -> Iterator[Driver]:
        """Yield every driver, in the order in which they are opened and swept."""
        yield self.runtime
        yield from self.volumes.values()  # in the storage or beside it, and through the network
        yield self.storage
        yield self.security_groups
        yield from self.enis.values()  # out of the namespaces, as long as these are there
        yield self.netns
        yield self.vpc
        yield self.metadata
        yield self.images
        yield from self.logs.values()
        yield self.secrets
