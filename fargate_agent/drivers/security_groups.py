"""What enforces security groups, as the rest of the agent sees it."""

from collections.abc import Collection
from typing import Protocol

from fargate_agent.drivers.lifecycle import Driver
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan


class SecurityGroups(Driver, Protocol):
    """Knows the security groups of the agent's ENIs and has them enforced.

    Which ENI is in which group is told by `EniDriver.attach` and `EniDriver.update`.
    """

    async def adopt(self, enis: Collection[EniPlan]) -> None:
        """Return when what is known is enforced for ENIs that an agent before has attached.

        Called once, before anything is attached.

        Raises:
            ResourceInitializationError: the kernel refused.
        """
        ...

    async def learn(self, groups: Collection[GroupPlan], *, is_whole: bool = False) -> None:
        """Return when the groups are enforced as they are given, and a successor knows of it.

        Each replaces what was known of it. Flows that are open go on.

        Args:
            groups: Those that have changed, or all.
            is_whole: Whether every other group is to be forgotten.

        Raises:
            ResourceInitializationError: the kernel refused; what was enforced before is still.
            OSError: they can't be written down; they are enforced all the same.
        """
        ...
