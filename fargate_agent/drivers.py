"""The seams of the agent: what the task runner asks for, and nothing about how it is done.

Three rules hold for every driver:

* An `ensure`/`attach`/`start` that is repeated succeeds and changes nothing; so does a
  `release`/`detach`/`stop` of something already gone. A restarted agent depends on it.
* Only a `TaskError` leaves a driver. The error of the kernel or of containerd is its `__cause__`.
* What it holds of the agent's process, it closes in `__aexit__`. What belongs to a task stays: the
  next agent takes it over.

`composition` makes the drivers, and is the only module that names them.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from fargate_agent.plan import ContainerPlan, EniPlan, TaskPlan
from fargate_agent.wire.attributes import LOG_DRIVER, Attribute
from fargate_agent.wire.eni_kinds import EniKind


class Driver(Protocol):
    """What every driver is: an async context manager, open as long as the agent works."""

    async def __aenter__(self) -> Self:
        """Open what the driver needs before its first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what the driver holds of this process."""
        return


@runtime_checkable
class Service(Protocol):
    """Background work. A driver that has some names this as a base, too."""

    async def serve(self) -> None:
        """Work until cancelled. Begins when the tasks of the agent before are known and swept."""
        ...


@runtime_checkable
class Sweeper(Protocol):
    """Takes back what a crash left. A driver of which something may be left names it as a base."""

    async def sweep(self, kept: Collection[str]) -> list[str]:
        """Remove what is left of all tasks but those with the ids `kept`; return the names of it.

        For the start of an agent, before any other call, and for its end. What is removed is
        logged; so is what can't be removed, and it is left.

        Raises:
            ContainerRuntimeError: containerd doesn't say which tasks there are.
        """
        ...


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

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        """Remove the interface, and what only it needed on the host."""
        ...

    def read_attributes(self, _root: Path) -> Iterable[Attribute]:
        """Return what the machine has that ENIs of this kind may ask for; blocks."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says about running it. Source: OCI image specification, config.md."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """Each `NAME=value`."""
    user: str = ""
    working_directory: str = ""
    stop_signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is there and unpacked."""

    name: str
    """Full reference, as containerd's image store names it."""
    digest: str
    """Of the manifest that was chosen for the platform, `sha256:…`."""
    config_digest: str
    """What Docker calls the image id."""
    chain_id: str
    """Name of the snapshot that holds the root file system."""
    config: ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """How far one pull is."""

    image: str
    fetched_bytes: int
    total_bytes: int
    """Compressed size of what had to be fetched; 0 until the manifest is known."""
    unpacked_layers: int
    total_layers: int
    retry: str = ""
    """What is being tried again: "try 2 of 5: …"; empty if nothing is."""
    done: bool = False


class ImageStore(Driver, Protocol):
    """Gets images, through a task's own network."""

    async def ensure(
        self,
        reference: str,
        task: TaskPlan,
        progress: Callable[[PullProgress], None],
        network: asyncio.Event,
    ) -> Image:
        """Return when the image is there, unpacked, and kept from the garbage collector.

        `network` is set when the task's network can be used; nothing is sent before.

        Raises:
            CannotPullContainerError: it could not be resolved, fetched or unpacked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How a container ended."""

    code: int
    """128 and the signal's number if a signal ended it."""
    at: datetime
    oom_killed: bool = False
    stop_failed: str | None = None
    """Why the container could not be ended in the ordinary way, for the owner to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUsage:
    """What a container uses at a moment. Byte and nanosecond counts since it started."""

    read_at: datetime
    cpu_total_ns: int
    cpu_user_ns: int
    cpu_kernel_ns: int
    cpu_per_core_ns: tuple[int, ...]
    """Empty with cgroup v2, which doesn't count per core."""
    throttle_periods: int
    throttled_periods: int
    throttled_ns: int
    memory_bytes: int
    memory_max_bytes: int
    memory_limit_bytes: int
    """0 is unlimited."""
    memory_failures: int
    memory_stats: Mapping[str, int]
    """Named as in the cgroup's `memory.stat`."""
    pids: int
    pids_limit: int
    """0 is unlimited."""
    block_io: tuple[tuple[int, int, str, int], ...]
    """Major, minor, operation (`read`, `write`), bytes."""
    block_operations: tuple[tuple[int, int, str, int], ...]
    """Major, minor, operation, count."""


class Runtime(Driver, Protocol):
    """Makes containers and ends them."""

    async def ready(self) -> None:
        """Return when containers can be made and ended. No deadline; says once that it waits."""
        ...

    async def prepare(self, task: TaskPlan) -> None:
        """Return when the task's lease, cgroup, volumes and files exist.

        Raises:
            ResourceInitializationError: one of them can't be made.
        """
        ...

    async def release(self, task: TaskPlan) -> None:
        """Remove what `prepare` made."""
        ...

    async def exists(self, container: ContainerPlan) -> bool:
        """Whether the container's first process was made, be it running or ended."""
        ...

    async def create(
        self, task: TaskPlan, container: ContainerPlan, image: Image, log_uri: str | None
    ) -> None:
        """Return when the container stands, its logger runs, and only `start` is missing.

        `log_uri` None throws its output away.

        Raises:
            CannotCreateContainerError: containerd or runC refused, e.g. an unknown user.
            CannotStartContainerError: runC found no such program.
            ContainerRuntimeTimeoutError: it took too long, e.g. a logger that never gets ready.
        """
        ...

    async def start(self, task: TaskPlan, container: ContainerPlan) -> None:
        """Return when the first process of the container runs, or has run.

        From the first start on, the task has no more than its share of the processors. What runC
        did inside the task's cgroup before isn't held up by that.

        Raises:
            CannotStartContainerError: it could not be started.
            ResourceInitializationError: its logger has found that it can't work.
        """
        ...

    async def wait(self, container: ContainerPlan) -> ExitStatus:
        """Return when the container has ended. Has no deadline; outlives a lost containerd.

        Raises:
            ContainerRuntimeError: the container vanished and nobody knows how it ended.
        """
        ...

    async def watch_logger(self, container: ContainerPlan) -> None:
        """Return when the logger of a container that was started has ended.

        Never returns for one whose output goes to no logger. A logger ends after its container.
        """
        ...

    async def stop(self, container: ContainerPlan) -> ExitStatus | None:
        """End the container and remove it; None if it never started.

        Sends the image's stop signal, waits `stop_timeout_s`, then kills.

        Raises:
            CannotStopContainerError: it is still there.
        """
        ...

    async def usage(self, containers: tuple[ContainerPlan, ...]) -> Mapping[str, ContainerUsage]:
        """Say what those of the containers that run use, by container id."""
        ...


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

        The network of the task must be up.

        Raises:
            ResourceInitializationError: one is not to be had.
        """
        ...

    async def fetch(self, task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        """Return the values by what refers to them. The network of the task must be up.

        Raises:
            ResourceInitializationError: one is not to be had.
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
    netns: NetnsDriver
    enis: Mapping[EniKind, EniDriver]
    metadata: MetadataEndpoint
    images: ImageStore
    logs: Mapping[str, LogDriver]
    """By the name used in the task definition, e.g. `awslogs`."""
    secrets: SecretStore

    def __iter__(self) -> Iterator[Driver]:
        """Yield every driver, in the order in which they are opened and swept."""
        yield self.runtime
        yield self.netns
        yield from self.enis.values()
        yield self.metadata
        yield self.images
        yield from self.logs.values()
        yield self.secrets
