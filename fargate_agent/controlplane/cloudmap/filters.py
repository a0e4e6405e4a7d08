"""Filters of lists. Pure.

Source: Cloud Map API reference, NamespaceFilter, ServiceFilter, OperationFilter.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from fargate_agent.controlplane.cloudmap.calls import invalid_input
from fargate_agent.controlplane.validate import Json

_OWNER: Final[Mapping[str, str]] = {"RESOURCE_OWNER": "SELF"}
"""Everything is this account's."""


def check_filters(request: Json, conditions: Mapping[str, Sequence[str]]) -> list[Json]:
    """Return the filters of a request: each name has its conditions, each condition its values.

    Raises:
        ApiError: one can't.
    """
    filters: list[Json] = request.get("Filters", [])
    for each in filters:
        name, condition = each["Name"], each.get("Condition", "EQ")
        if condition not in conditions[name]:
            raise invalid_input(f"The filter {name} can't have the condition {condition}.")
        count = len(each["Values"])
        wanted = {"EQ": 1, "BEGINS_WITH": 1, "BETWEEN": 2}.get(condition, count)
        if count != wanted or not count:
            raise invalid_input(f"The filter {name} can't have {count} values with {condition}.")
        if condition == "BETWEEN":
            for value in each["Values"]:
                _parse_moment(value)
    return filters


def matches(filters: Sequence[Json], values: Mapping[str, str | float]) -> bool:
    """Whether something with these values, by the names of filters, passes all of them."""
    known = {**_OWNER, **values}
    return all(_passes(each, known[each["Name"]]) for each in filters)


def _passes(wanted: Json, value: str | float) -> bool:
    if isinstance(value, float):
        first, last = map(_parse_moment, wanted["Values"])
        return first <= value <= last
    if wanted.get("Condition") == "BEGINS_WITH":
        return value.startswith(wanted["Values"][0])
    return value in wanted["Values"]


def _parse_moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise invalid_input(f"'{text[:64]}' is no time in seconds since 1970.") from None
