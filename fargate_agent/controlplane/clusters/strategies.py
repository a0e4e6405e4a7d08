"""Capacity provider strategies: which of Fargate's two a cluster uses. Pure."""

from typing import Final

from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.validate import Json

PROVIDERS: Final = frozenset({"FARGATE", "FARGATE_SPOT"})

MAX_ITEMS: Final = 20
"""Source: ECS API, CapacityProviderStrategyItem."""

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
        ApiError: it can't. The texts are unverified, but for the one on what isn't associated.
    """
    names = [item["capacityProvider"] for item in items]
    if len(items) > MAX_ITEMS:
        raise invalid_parameter(f"A strategy can have at most {MAX_ITEMS} capacity providers.")
    if not set(providers).issuperset(names):
        raise invalid_parameter(
            "The specified capacity provider strategy cannot contain a capacity provider that is "
            "not associated with the cluster. Associate the capacity provider with the cluster and "
            "try again."
        )
    if len(set(names)) < len(names):
        raise invalid_parameter("A capacity provider can be in a strategy only once.")
    if sum(item.get("base", 0) > 0 for item in items) > 1:
        raise invalid_parameter("Only one capacity provider in a strategy can have a base.")
    if items and not any(item.get("weight", 0) for item in items):
        raise invalid_parameter("A strategy needs a capacity provider whose weight is above 0.")
