"""What one task is given by reference: fetched once, for all of its containers, side by side."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.parallel import together
from fargate_agent.plan import ContainerPlan, TaskPlan

FetchSecrets = Callable[[TaskPlan, Collection[str]], Awaitable[Mapping[str, str]]]
"""Returns values by what refers to them."""

FetchFiles = Callable[[TaskPlan, Collection[str]], Awaitable[Mapping[str, Mapping[str, str]]]]
"""Returns the variables of environment files by their ARNs."""


class Fetched:
    """Values of a task that are being fetched, or were."""

    def __init__(
        self,
        task: TaskPlan,
        containers: Collection[ContainerPlan],
        fetch: FetchSecrets,
        fetch_files: FetchFiles,
    ) -> None:
        """Begin to fetch what the containers, and their loggers, refer to."""
        self.values: Mapping[str, str] = {}
        """By what refers to them."""
        self.files: Mapping[str, Mapping[str, str]] = {}
        """Variables by the ARN of their file."""
        self.waiting = {container.name for container in containers if container.refers}
        """Names of the containers that have not been given theirs."""
        references = {one for container in containers for one in find_references(container)}
        arns = {one for container in containers for one in container.environment_files}
        self._job = asyncio.create_task(self._run(task, references, arns, fetch, fetch_files))
        self._job.add_done_callback(_hear)

    async def wait(self) -> None:
        """Return when all is there.

        Raises:
            ResourceInitializationError: a value could not be fetched.
        """
        try:
            await asyncio.shield(self._job)
        except ResourceInitializationError as error:  # each that waits has one of its own
            raise ResourceInitializationError(error.detail) from error.__cause__

    async def cancel(self) -> None:
        """Fetch nothing more."""
        self._job.cancel()
        await asyncio.wait([self._job])  # a cancellation of the caller isn't lost here

    async def _run(
        self,
        task: TaskPlan,
        references: Collection[str],
        arns: Collection[str],
        fetch: FetchSecrets,
        fetch_files: FetchFiles,
    ) -> None:
        async def get_values() -> None:
            self.values = await fetch(task, references)

        async def get_files() -> None:
            self.files = await fetch_files(task, arns)

        await together([get_values(), *([get_files()] if arns else [])])


def find_references(container: ContainerPlan) -> Iterator[str]:
    """Give what a container, and its logger, have by reference, but for files of variables."""
    yield from container.log.secrets.values()
    yield from container.secrets.values()
    yield from (reference for _, reference in container.secret_objects)
    yield from (one.reference for one in container.files if one.reference is not None)


def have_references(containers: Iterable[ContainerPlan]) -> bool:
    """Whether there is anything to fetch."""
    return any(container.log.secrets or container.refers for container in containers)


def _hear(job: asyncio.Task[None]) -> None:
    """Take note of a failure that nobody may have waited for."""
    if not job.cancelled():
        job.exception()
