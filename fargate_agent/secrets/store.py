"""What tasks are given by reference: secrets, environment files, and the secrets of log options.

A secret of a log option is handed to the logger that is being started, and to nobody else. A
container of the same task can ask for whatever the logger can. So it stands behind an id that
nobody can guess, and the first who reads it is the last.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping

from fargate_agent.credentials.roles import Roles
from fargate_agent.drivers import SecretStore
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.secrets.environment import add_to_environment
from fargate_agent.secrets.fetched import Fetched, FetchFiles, FetchSecrets, have_references
from fargate_agent.secrets.files import add_files, object_variables
from fargate_agent.secrets.logins import read_login
from fargate_agent.secrets.references import BY_NAME


def no_files(_task: TaskPlan, _arns: Collection[str]) -> Awaitable[Mapping[str, Mapping[str, str]]]:
    """Stand for a place of environment files where there is none.

    Raises:
        ResourceInitializationError: always.
    """
    raise ResourceInitializationError("failed to download env files: there is no place for them")


class TaskSecrets(SecretStore):
    """Fetches from when the network of a task is up; holds what was fetched until it is taken."""

    def __init__(
        self,
        fetch: FetchSecrets,
        roles: Roles,
        exists: Callable[[ContainerPlan], Awaitable[bool]],
        fetch_files: FetchFiles = no_files,
    ) -> None:
        """`exists` says which containers, and so their loggers, have been made already."""
        self._fetch = fetch
        self._fetch_files = fetch_files
        self._roles = roles
        self._exists = exists
        self._fetched: dict[str, Fetched] = {}
        """By the id of the task, as long as a container waits for its own."""
        self._options: dict[str, dict[str, str]] = {}
        """Values by option, by the id of the container's secrets."""

    async def __aexit__(self, *_: object) -> None:
        for fetched in list(self._fetched.values()):
            await fetched.cancel()
        self._fetched.clear()

    async def ensure(self, task: TaskPlan) -> None:
        waiting = [
            container
            for container in task.containers
            if (container.log.secrets or container.log.plain_secrets or container.refers)
            and not await self._exists(container)
        ]
        fetched = self._begin(task, waiting) if have_references(waiting) else None
        loggers = [one for one in waiting if one.log.secrets or one.log.plain_secrets]
        if fetched is not None and any(one.log.secrets for one in loggers):
            await fetched.wait()
        for container in loggers:
            self._options[container.log.secrets_id] = {
                **container.log.plain_secrets,
                **{
                    option: fetched.values[one]
                    for option, one in container.log.secrets.items()
                    if fetched is not None
                },
            }
        if fetched is not None and not fetched.waiting:
            self._fetched.pop(task.id, None)

    async def settled(self, task: TaskPlan) -> None:
        fetched = self._fetched.get(task.id)
        if fetched is not None:
            await fetched.wait()

    async def complete(self, task: TaskPlan, container: ContainerPlan) -> ContainerPlan:
        if not container.refers:
            return container
        fetched = self._fetched.get(task.id)
        if fetched is None or container.name not in fetched.waiting:
            fetched = Fetched(task, [container], self._fetch, self._fetch_files)
            try:
                await fetched.wait()
            finally:
                await fetched.cancel()
        await fetched.wait()
        fetched.waiting.discard(container.name)
        if not fetched.waiting and self._fetched.get(task.id) is fetched:
            del self._fetched[task.id]
        return add_to_environment(
            add_files(container, fetched.values),
            {name: fetched.values[one] for name, one in container.secrets.items()},
            [
                object_variables(container, fetched.values),
                *(fetched.files[arn] for arn in container.environment_files),
            ],
        )

    async def registry_credentials(
        self, task: TaskPlan, container: ContainerPlan
    ) -> tuple[str, str] | None:
        reference = container.repository_credentials
        if reference is None:
            return None
        if not reference.startswith("arn:"):
            reference = BY_NAME + reference
        return read_login((await self._fetch(task, {reference}))[reference], reference)

    def take(self, task: TaskPlan, secrets_id: str, option: str) -> str | None:
        """Return a value, and forget it; None if that id isn't the task's, or has none."""
        ids = {container.log.secrets_id for container in task.containers}
        known = self._options.get(secrets_id, {}) if secrets_id in ids else {}
        return known.pop(option, None)

    async def release(self, task: TaskPlan) -> None:
        if (fetched := self._fetched.pop(task.id, None)) is not None:
            await fetched.cancel()
        for container in task.containers:
            self._options.pop(container.log.secrets_id, None)
        self._roles.forget(task)

    def _begin(self, task: TaskPlan, containers: Collection[ContainerPlan]) -> Fetched:
        fetched = self._fetched.get(task.id)
        if fetched is None:
            fetched = Fetched(task, containers, self._fetch, self._fetch_files)
            self._fetched[task.id] = fetched
        return fetched
