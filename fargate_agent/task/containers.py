"""The containers of one task, all of them."""

from fargate_agent.parallel import together
from fargate_agent.task.life import ContainerLife, EssentialExitedError
from fargate_agent.task.surroundings import Surroundings


class Containers:
    """Runs and stops the containers of one task; each has a life of its own."""

    def __init__(self, task: Surroundings) -> None:
        self._lives = {
            one.name: ContainerLife(one, task.facts.containers[one.name], task)
            for one in task.plan.containers
        }

    async def run(self) -> None:
        """Run every container as its dependencies allow; return when an essential one has ended.

        Raises:
            TaskError: the task can't go on.
        """
        try:
            await together(life.run(self._lives) for life in self._lives.values())
        except EssentialExitedError:
            return

    async def stop(self) -> None:
        """End and remove every container, each after those that depend on it, whatever fails."""
        await together(
            life.stop([self._lives[name] for name in life.plan.stops_after])
            for life in self._lives.values()
        )
