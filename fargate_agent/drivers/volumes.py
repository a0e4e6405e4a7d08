"""Volumes of tasks, and who makes them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fargate_agent.drivers.lifecycle import Driver
from fargate_agent.plan import TaskPlan, VolumePlan
from fargate_agent.wire.attributes import Attribute


class VolumeDriver(Driver, Protocol):
    """Makes the volumes of one kind, and takes them away.

    Before it, the ephemeral volume of the task is mounted. Nothing is ever removed through a mount
    of another file system.
    """

    needs_network: bool = False
    """It goes through the network of the task, so the containers that mount such a volume are made
    after that is up."""

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        """Return when `volume.source` is a directory that containers can mount.

        Raises:
            ResourceInitializationError: it can't be made.
        """
        ...

    async def release(self, task: TaskPlan, volume: VolumePlan) -> None:
        """Take away what `ensure` made, but for what outlives the task; the containers are gone."""
        ...

    async def interrupt(self, task: TaskPlan, volume: VolumePlan) -> None:
        """Let nobody wait any longer for a server that has the files, so that they can be ended.

        A container of the task was killed, and still runs. What isn't written yet may be lost.
        """
        del task, volume

    def read_attributes(self, _root: Path) -> Iterable[Attribute]:
        """Return what the machine has that volumes of this kind may ask for; blocks."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageUse:
    """How full an ephemeral volume is."""

    used_bytes: int
    size_bytes: int


class EphemeralStorage(Driver, Protocol):
    """Makes the ephemeral volume of each task, which is all that its containers can fill."""

    async def ensure(self, task: TaskPlan) -> None:
        """Return when `task.storage` is a directory of the size that the task asked for.

        Makes `task.directory` too, mode 0700.

        Raises:
            ResourceInitializationError: it can't be made, or this machine has no room for it.
        """
        ...

    async def release(self, task: TaskPlan) -> None:
        """Take it away with all that is in it; the containers of the task are gone."""
        ...

    async def usage(self, task: TaskPlan) -> StorageUse | None:
        """Return how full it is; None if nothing bounds it.

        Raises:
            ResourceInitializationError: there is none.
        """
        ...
