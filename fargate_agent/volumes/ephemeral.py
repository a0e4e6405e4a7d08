"""The ephemeral volume of a task: writable layers, scratch volumes and files in /etc lie in it."""

import asyncio

from fargate_agent.drivers import EphemeralStorage, StorageUse
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan
from fargate_agent.trees import remove_tree


class EphemeralVolumes(EphemeralStorage):
    """Makes them as plain directories."""

    async def ensure(self, task: TaskPlan) -> None:
        try:
            await asyncio.to_thread(_make_directory, task)
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to make the ephemeral volume: {error.strerror}"
            ) from error

    async def release(self, task: TaskPlan) -> None:
        try:
            await asyncio.to_thread(remove_tree, task.storage)
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to remove the ephemeral volume: {error.strerror}"
            ) from error

    async def usage(self, task: TaskPlan) -> StorageUse | None:
        return None


def _make_directory(task: TaskPlan) -> None:
    task.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    task.directory.chmod(0o700)
    task.storage.mkdir(mode=0o700, exist_ok=True)
