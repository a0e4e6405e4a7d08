"""What a newer message about a task has that can't change while the task is there; pure."""

from collections.abc import Iterator
from typing import Final

from fargate_agent.wire.message import Message
from fargate_agent.wire.messages import TaskMessage

_MAY_CHANGE: Final = frozenset(
    {
        "desiredStatus",
        "elasticNetworkInterfaces.securityGroups",
        "executionRoleCredentials",
        "roleCredentials",
        "securityGroups",
        "traceparent",
    }
)


def find_refused(before: TaskMessage, after: TaskMessage) -> set[str]:
    """Return the names of members that differ and may not, e.g. `containers.image`.

    Never what is in them, which may be secret.
    """
    return set(_compare(before, after, ""))


def _compare(before: object, after: object, name: str) -> Iterator[str]:
    if name in _MAY_CHANGE or before == after:
        return
    if isinstance(before, Message) and type(before) is type(after):
        for field, info in type(before).model_fields.items():
            if not info.exclude:  # else the record of the task doesn't have it
                path = f"{name}.{info.alias}".lstrip(".")
                yield from _compare(getattr(before, field), getattr(after, field), path)
    elif isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from _compare(one, other, name)
    else:
        yield name
