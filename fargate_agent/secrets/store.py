"""The secrets of tasks, and those of log options in particular.

A secret of a log option is handed to the logger that is being started, and to nobody else. A
container of the same task can ask for whatever the logger can. So it stands behind an id that
nobody can guess, and the first who reads it is the last.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace

from fargate_agent.credentials.roles import Roles
from fargate_agent.drivers import SecretStore
from fargate_agent.plan import ContainerPlan, TaskPlan

FetchSecrets = Callable[[TaskPlan, Collection[str]], Awaitable[Mapping[str, str]]]
"""Returns values by what refers to them."""


class TaskSecrets(SecretStore):
    """Holds secrets of log options from when the network of a task is up until they are taken."""

    def __init__(
        self,
        fetch: FetchSecrets,
        roles: Roles,
        exists: Callable[[ContainerPlan], Awaitable[bool]],
    ) -> None:
        """`exists` says of which containers the loggers have been started already."""
        self._fetch = fetch
        self._roles = roles
        self._exists = exists
        self._options: dict[str, dict[str, str]] = {}
        """Values by option, by the id of the container's secrets."""

    async def complete(self, task: TaskPlan, container: ContainerPlan) -> ContainerPlan:
        if not container.secrets:
            return container
        values = await self._fetch(task, set(container.secrets.values()))
        own = {name: values[one] for name, one in container.secrets.items()}
        return replace(container, environment={**container.environment, **own})

    async def registry_credentials(
        self, task: TaskPlan, container: ContainerPlan
    ) -> tuple[str, str] | None:
        raise NotImplementedError

    async def ensure(self, task: TaskPlan) -> None:
        waiting = [
            container
            for container in task.containers
            if (container.log.secrets or container.log.plain_secrets)
            and not await self._exists(container)
        ]
        wanted = {one for container in waiting for one in container.log.secrets.values()}
        values = await self._fetch(task, wanted)
        for container in waiting:
            self._options[container.log.secrets_id] = {
                **container.log.plain_secrets,
                **{option: values[one] for option, one in container.log.secrets.items()},
            }

    def take(self, task: TaskPlan, secrets_id: str, option: str) -> str | None:
        """Return a value, and forget it; None if that id isn't the task's, or has none."""
        ids = {container.log.secrets_id for container in task.containers}
        known = self._options.get(secrets_id, {}) if secrets_id in ids else {}
        return known.pop(option, None)

    async def release(self, task: TaskPlan) -> None:
        for container in task.containers:
            self._options.pop(container.log.secrets_id, None)
        self._roles.forget(task)
