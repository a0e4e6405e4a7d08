"""What the VPC serves its tasks, as the rest of the agent sees it."""

from collections.abc import Collection
from typing import Protocol

from fargate_agent.drivers.lifecycle import Driver
from fargate_agent.plan import TaskPlan
from fargate_agent.plan.names import ZonePlan


class VpcServices(Driver, Protocol):
    """Answers tasks about names and the time."""

    async def ensure(self, task: TaskPlan) -> None:
        """Return when a task whose network namespace exists is answered.

        Raises:
            ResourceInitializationError: the kernel refused.
        """
        ...

    async def release(self, task: TaskPlan) -> None:
        """Stop answering, and hold nothing of the network namespace any more."""
        ...

    async def learn(self, zones: Collection[ZonePlan]) -> None:
        """Return when these private zones are answered, and no others; a successor knows them.

        Raises:
            OSError: they can't be written down; they are answered all the same.
        """
        ...
