"""The images of one task: each reference is got once, for all containers that name it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from fargate_agent.drivers import Image, ImageStore, PullProgress
from fargate_agent.errors import CannotPullContainerError, TaskError
from fargate_agent.plan import TaskPlan
from fargate_agent.task.phases import timing
from fargate_agent.task.status import TaskFacts


class Pulls:
    """Gets images for the containers that are to be created, and notes when."""

    def __init__(
        self,
        plan: TaskPlan,
        facts: TaskFacts,
        store: ImageStore,
        images: dict[str, Image],
        show: Callable[[str, PullProgress], None],
        network: asyncio.Event,
    ) -> None:
        """`images` is filled by reference; `show` is told how far the pull of a reference is.

        `network` is set when the network of the task can be used.
        """
        self._plan = plan
        self._facts = facts
        self._store = store
        self._images = images
        self._show = show
        self._network = network
        self._turns = {container.image: asyncio.Lock() for container in plan.containers}
        self._failures: dict[str, str] = {}
        self._waiting = 0

    async def get(self, reference: str) -> Image:
        """Return when an image is there.

        Raises:
            CannotPullContainerError: the pull failed.
        """
        self._facts.pull_started_at = self._facts.pull_started_at or datetime.now(UTC)
        self._waiting += 1
        try:
            async with self._turns[reference]:
                if reference in self._failures:
                    raise CannotPullContainerError(self._failures[reference])
                if reference not in self._images:
                    self._images[reference] = await self._ensure(reference)
        except CannotPullContainerError as error:
            self._failures[reference] = error.detail
            raise
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._facts.pull_stopped_at = datetime.now(UTC)
        return self._images[reference]

    async def get_anew(self, reference: str, gone: Image) -> Image:
        """Return when an image is there again, which went after `get` had returned it.

        Raises:
            CannotPullContainerError: the pull failed.
        """
        if self._images.get(reference) is gone:
            del self._images[reference]
            self._store.forget(gone)
        return await self.get(reference)

    def ends_task(self, error: TaskError) -> bool:
        """Whether an error of `get` ends the task, whichever container wanted the image."""
        return isinstance(error, CannotPullContainerError) and self._store.failed_pull_ends_task

    async def _ensure(self, reference: str) -> Image:
        def show(progress: PullProgress) -> None:
            self._show(reference, progress)

        with timing("pull", reference):
            return await self._store.ensure(reference, self._plan, show, self._network)
