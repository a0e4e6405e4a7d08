"""The images of one task: each is got once, for all containers that name it alike.

Two containers may name the same image and show its registry different credentials: each is served
as its definition says.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from fargate_agent.drivers import Drivers, Image, PullProgress
from fargate_agent.errors import CannotPullContainerError, ResourceInitializationError, TaskError
from fargate_agent.plan import ContainerPlan, Replacement, TaskPlan
from fargate_agent.task.phases import timing
from fargate_agent.task.status import TaskFacts

ImageKey = tuple[str, str | None]
"""Reference of an image in the task definition, and the secret with its credentials."""


class Pulls:
    """Gets images for the containers that are to be created, and notes when."""

    def __init__(
        self,
        plan: TaskPlan,
        facts: TaskFacts,
        drivers: Drivers,
        images: dict[ImageKey, Image],
        show: Callable[[str, PullProgress], None],
        network: asyncio.Event,
    ) -> None:
        """`images` is filled; `show` is told how far the pull of a reference is.

        `network` is set when the network of the task can be used.
        """
        self._plan = plan
        self._facts = facts
        self._store = drivers.images
        self._secrets = drivers.secrets
        self._images = images
        self._show = show
        self._network = network
        self._turns = {_key(container): asyncio.Lock() for container in plan.containers}
        self._failures: dict[ImageKey, str] = {}
        self._waiting = 0

    async def get(self, container: ContainerPlan) -> Image:
        """Return when the image of a container is there.

        Raises:
            CannotPullContainerError: the pull failed; that is the container's own error.
            ResourceInitializationError: a password could not be fetched. That ends the task.
        """
        key = _key(container)
        self._facts.pull_started_at = self._facts.pull_started_at or datetime.now(UTC)
        self._waiting += 1
        try:
            async with self._turns[key]:
                if key in self._failures:
                    raise CannotPullContainerError(self._failures[key])
                if key not in self._images:
                    self._images[key] = await self._ensure(container)
        except ResourceInitializationError:
            raise
        except TaskError as error:
            error.container = container.name
            if isinstance(error, CannotPullContainerError):
                self._failures[key] = error.detail
            raise
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._facts.pull_stopped_at = datetime.now(UTC)
        return self._images[key]

    async def get_anew(self, container: ContainerPlan, gone: Image) -> Image:
        """Return when an image is there again, which went after `get` had returned it.

        Raises:
            CannotPullContainerError: as `get` does.
            ResourceInitializationError: as `get` does.
        """
        key = _key(container)
        if self._images.get(key) is gone:
            del self._images[key]
            self._store.forget(gone)
        return await self.get(container)

    def ends_task(self, error: TaskError) -> bool:
        """Whether an error of `get` ends the task, whichever container wanted the image."""
        return isinstance(error, CannotPullContainerError) and self._store.failed_pull_ends_task

    async def _ensure(self, container: ContainerPlan) -> Image:
        def show(progress: PullProgress) -> None:
            self._show(container.image, progress)

        find_login = partial(self._secrets.registry_credentials, self._plan, container)
        with timing("pull", container.image):
            image = await self._store.ensure(
                container.image, self._plan, show, self._network, find_login
            )
        if image.source is not None:
            self._facts.note_replacement(
                Replacement(kind="image", what=container.image, by=image.source)
            )
        return image


def _key(container: ContainerPlan) -> ImageKey:
    return container.image, container.repository_credentials
