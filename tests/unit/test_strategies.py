"""Tasks are shared among capacity providers as their strategy says."""

from collections import Counter
from typing import Any

import pytest

from fargate_agent.controlplane.clusters.strategies import share


def strategy(**items: tuple[int, int]) -> list[Any]:
    """Base and weight by the end of the provider's name."""
    names = {"on": "FARGATE", "spot": "FARGATE_SPOT"}
    return [
        {"capacityProvider": names[name], "base": base, "weight": weight}
        for name, (base, weight) in items.items()
    ]


@pytest.mark.parametrize(
    ("items", "count", "on", "spot"),
    [
        pytest.param(strategy(on=(0, 1), spot=(0, 1)), 10, 5, 5, id="evenly"),
        pytest.param(strategy(on=(0, 1), spot=(0, 4)), 10, 2, 8, id="by weight"),
        pytest.param(strategy(on=(0, 0), spot=(0, 1)), 3, 0, 3, id="no weight"),
        pytest.param(strategy(on=(2, 0), spot=(0, 1)), 5, 2, 3, id="base alone"),
        pytest.param(strategy(on=(2, 1), spot=(0, 3)), 10, 4, 6, id="base and weight"),
        pytest.param(strategy(on=(0, 1), spot=(3, 0)), 2, 0, 2, id="less than the base"),
    ],
)
def test_tasks_are_shared_by_base_and_weight(
    items: list[Any], count: int, on: int, spot: int
) -> None:
    shared = Counter(share(items, {}, count))

    assert (shared["FARGATE"], shared["FARGATE_SPOT"]) == (on, spot)


def test_tasks_that_come_one_by_one_are_shared_the_same_way() -> None:
    items = strategy(on=(2, 1), spot=(0, 3))
    placed = Counter[str]()
    for _ in range(10):
        placed.update(str(name) for name in share(items, placed, 1))

    assert placed == Counter(share(items, {}, 10))


def test_task_of_a_provider_that_ended_is_replaced_by_one_of_the_same() -> None:
    items = strategy(on=(1, 1), spot=(0, 1))

    assert share(items, {"FARGATE": 0, "FARGATE_SPOT": 1}, 1) == ["FARGATE"]
    assert share(items, {"FARGATE": 2, "FARGATE_SPOT": 0}, 1) == ["FARGATE_SPOT"]


def test_tasks_without_a_strategy_have_no_provider() -> None:
    assert share([], {}, 2) == [None, None]
