"""What a task needs of an agent that not every agent has."""

from typing import Any

import pytest

from fargate_agent.controlplane.agents.needs import find_needs


def needs(definition: dict[str, Any] | None = None, **container: Any) -> dict[str, list[str]]:
    found = find_needs(definition or {}, [{"name": "app", **container}])
    return {need.what: [name for name, _ in need.attributes] for need in found}


@pytest.mark.parametrize("size_mib", [0, None])
def test_shared_memory_of_the_usual_size_needs_nothing(size_mib: int | None) -> None:
    assert "sharedMemorySize" not in needs(linuxParameters={"sharedMemorySize": size_mib})


def test_shared_memory_of_another_size_needs_an_agent_that_makes_it() -> None:
    found = needs(linuxParameters={"sharedMemorySize": 128})

    assert found["sharedMemorySize"] == ["fargate.capability.container-shared-memory-size"]
