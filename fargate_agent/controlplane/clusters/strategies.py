"""Capacity provider strategies: which of Fargate's two a cluster, service or task uses. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.validate import Json

PROVIDERS: Final = frozenset({"FARGATE", "FARGATE_SPOT"})

MAX_ITEMS: Final = 20
"""Source: ECS API, CapacityProviderStrategyItem."""

NO_WEIGHT: Final = (
    "There are no capacity providers in the capacity provider strategy with a weight value greater "
    "than zero. Specify a weight value greater than zero for at least one capacity provider and "
    "try again."
)
NO_DEFAULT_WEIGHT: Final = (
    "There are no capacity providers with a weight value greater than zero defined in the default "
    "capacity provider strategy. At least one capacity provider must have a weight value greater "
    "than zero specified. Update the cluster's default capacity provider strategy or specify a "
    "valid capacity provider strategy and try again."
)
"""What is said where the strategy is used: a cluster may have one like that. Source: ECS API, as
users report it."""
_TWO_BASES: Final = (
    "The specified capacity provider strategy contains multiple capacity providers with a base "
    "value defined. Only one capacity provider per strategy can have a base value defined."
)
"""Source: ECS API, as users report it."""
_NOT_FOUND: Final = "The specified capacity provider was not found."


def check_providers(names: list[str]) -> None:
    """Return if a cluster can have these capacity providers.

    Raises:
        ApiError: one isn't there, or is named twice. The texts are unverified.
    """
    if not PROVIDERS.issuperset(names):
        raise invalid_parameter(_NOT_FOUND)
    if len(set(names)) < len(names):
        raise invalid_parameter("A capacity provider can be named only once.")


def check_default_strategy(items: list[Json], providers: list[str]) -> None:
    """Return if a cluster with these capacity providers can have the strategy as its default.

    Raises:
        ApiError: it can't.
    """
    names = [item["capacityProvider"] for item in items]
    _check_items(items)
    if not set(providers).issuperset(names):
        raise invalid_parameter(
            "The specified capacity provider strategy cannot contain a capacity provider that is "
            "not associated with the cluster. Associate the capacity provider with the cluster and "
            "try again."
        )


def check_strategy(items: list[Json], no_weight: str = NO_WEIGHT) -> None:
    """Return if tasks can be placed by a strategy; one without items leaves that open.

    Args:
        items: of the strategy.
        no_weight: what is said of a strategy in which nothing has a weight.

    Raises:
        ApiError: they can't.
    """
    if not PROVIDERS.issuperset(item["capacityProvider"] for item in items):
        raise invalid_parameter(_NOT_FOUND)
    _check_items(items)
    if items and not any(item.get("weight", 0) for item in items):
        raise invalid_parameter(no_weight)


def share(items: list[Json], placed: Mapping[str, int], count: int) -> list[str | None]:
    """Return the capacity provider of each of `count` further tasks; None: there is no strategy.

    The base comes first. Then each task goes to the provider that lacks most of its weight's share.

    Args:
        items: of a strategy that passed `check_strategy`, or none.
        placed: how many tasks the capacity providers have already.
        count: how many tasks are to be placed.

    Source: ECS API, CapacityProviderStrategyItem; the order of tasks is ours.
    """
    if not items:
        return [None] * count
    there = Counter(placed)
    chosen = list[str | None]()
    for _ in range(count):
        provider = _choose(items, there)
        there[provider] += 1
        chosen.append(provider)
    return chosen


def _choose(items: list[Json], there: Counter[str]) -> str:
    weights: dict[str, int] = {}
    beyond: dict[str, int] = {}
    for item in items:
        name = item["capacityProvider"]
        weights[name] = item.get("weight", 0)
        beyond[name] = there[name] - item.get("base", 0)
    for name, tasks in beyond.items():
        if tasks < 0:
            return name
    total, weight_of_all = sum(beyond.values()) + 1, sum(weights.values())
    return max(weights, key=lambda name: weights[name] * total - beyond[name] * weight_of_all)


def _check_items(items: list[Json]) -> None:
    """Raise if the items don't go together. Only the text on two bases is verified."""
    if len(items) > MAX_ITEMS:
        raise invalid_parameter(f"A strategy can have at most {MAX_ITEMS} capacity providers.")
    if len({item["capacityProvider"] for item in items}) < len(items):
        raise invalid_parameter("A capacity provider can be in a strategy only once.")
    if sum(item.get("base", 0) > 0 for item in items) > 1:
        raise invalid_parameter(_TWO_BASES)
