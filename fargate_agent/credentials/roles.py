"""The credentials of tasks' roles: the control plane sends them, and they are kept in memory.

Nothing of them is ever written down. An agent that starts anew has none until they are sent again,
which it asks for when it connects. Source: amazon-ecs-agent, ecs-agent/credentials.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from fargate_agent.aws.errors import RoleError
from fargate_agent.plan import RolePlan, TaskPlan
from fargate_agent.role_keys import RoleKeys

log = logging.getLogger(__name__)

WAIT_S: Final = 60.0
"""For credentials that have not come yet. Source: amazon-ecs-agent, agent/taskresource."""


class Roles:
    """Has the credentials of every task's roles."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._keys: dict[tuple[str, str], RoleKeys] = {}
        """By task id and credentials id."""
        self._moved = asyncio.Event()

    def deliver(self, task_id: str, credentials_id: str, keys: RoleKeys) -> None:
        """Take credentials of a role of a task, in the place of those that there are."""
        now = datetime.now(UTC)
        self._keys = {name: one for name, one in self._keys.items() if one.expires_at > now}
        self._keys[task_id, credentials_id] = keys
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def find(self, task: TaskPlan, role: RolePlan) -> RoleKeys | None:
        """Return credentials of a role of a task; None if there are none that are good now."""
        keys = self._keys.get((task.id, role.credentials_id)) or role.given
        return keys if keys is not None and keys.expires_at > datetime.now(UTC) else None

    async def keys(self, task: TaskPlan, role: RolePlan, wait_s: float | None = None) -> RoleKeys:
        """Return credentials of a role of a task, which may have to come first.

        `wait_s` is how long to wait at most; None: as long as a start may.

        Raises:
            RoleError: none has come in time. Trying again at once makes no sense.
        """
        wait_s = self._wait_s if wait_s is None else wait_s
        try:
            async with asyncio.timeout(wait_s):
                while (keys := self.find(task, role)) is None:
                    await self._moved.wait()
        except TimeoutError:
            text = (
                f"the control plane has sent no credentials of role {role.arn} within {wait_s:g} s"
            )
            log.error("%s", text, extra={"task": task.id})
            raise RoleError(text) from None
        return keys

    def forget(self, task: TaskPlan) -> None:
        """Keep nothing of a task."""
        self.forget_id(task.id)

    def forget_id(self, task_id: str) -> None:
        """Keep nothing of the task that has this id."""
        self._keys = {name: keys for name, keys in self._keys.items() if name[0] != task_id}
