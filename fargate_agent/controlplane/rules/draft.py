"""A task definition that a client wants registered, as the rules see it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fargate_agent.controlplane.sizes import parse_cpu, parse_memory
from fargate_agent.controlplane.validate import Json


@dataclass(frozen=True, slots=True)
class Draft:
    """A request of RegisterTaskDefinition of the right shape, and who makes it."""

    request: Json
    account: str
    """Id of the account that it is registered in."""
    has_32_vcpus: bool = True
    """Whether Fargate has tasks of that size here."""

    @property
    def containers(self) -> list[Any]:
        """The containers, in their order."""
        containers: list[Any] = self.request["containerDefinitions"]
        return containers

    @property
    def requires_fargate(self) -> bool:
        """Whether the client wants to be told what Fargate refuses."""
        return "FARGATE" in self.request.get("requiresCompatibilities", [])

    @property
    def is_awsvpc(self) -> bool:
        """Whether the task has an ENI of its own, which all of its containers share."""
        return self.request.get("networkMode") == "awsvpc"

    @property
    def is_windows(self) -> bool:
        """Whether the task needs a Windows host."""
        family: str = self.request.get("runtimePlatform", {}).get("operatingSystemFamily", "LINUX")
        return family != "LINUX"

    def cpu_units(self) -> int | None:
        """Return what the task as a whole has; None if that isn't said.

        Raises:
            ApiError: it can't be read.
        """
        text = self.request.get("cpu")
        return None if text is None else parse_cpu(text)

    def memory_mib(self) -> int | None:
        """Return what the task as a whole has; None if that isn't said.

        Raises:
            ApiError: it can't be read.
        """
        text = self.request.get("memory")
        return None if text is None else parse_memory(text)

    def members(self, name: str) -> Iterator[tuple[Json, Any]]:
        """Give each container with each item of its list `name`."""
        for container in self.containers:
            for item in container.get(name, []):
                yield container, item


Rule = Callable[[Draft], None]
"""Returns if a definition may be registered as far as this rule goes; else raises `ApiError`."""
