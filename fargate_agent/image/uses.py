"""When each image was last used, and by which tasks: labels of its record, which survive restarts.

A task uses an image from its message until it is over. What tasks have begun to use is noted in
memory, since a start doesn't wait for a label; the collector writes it down.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from fargate_agent.containerd.images import ImageRecord
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.reference import InvalidReferenceError, parse_reference
from fargate_agent.plan import TaskPlan

PULLED_LABEL: Final = "fargate.agent/pulled-at"
"""On an image record: when this agent pulled it. An image that was loaded doesn't have it."""

USED_LABEL: Final = "fargate.agent/used-at"
"""On an image record: when a task was last known to use it."""

Users = Callable[[], Mapping[str, Sequence[TaskPlan]]]
"""Returns the tasks that use each image, by its name as task definitions write it."""


def nobody() -> Mapping[str, Sequence[TaskPlan]]:
    """Know of no task."""
    return {}


def find_users(users: Users) -> dict[str, list[TaskPlan]]:
    """Return the tasks that use each image, by the name of its record."""
    found: dict[str, list[TaskPlan]] = {}
    for name, tasks in users().items():
        try:
            record = parse_reference(name).name
        except InvalidReferenceError:
            continue
        known = found.setdefault(record, [])
        known += [task for task in tasks if task not in known]
    return found


def turn_of(locks: KeyedLocks, name: str) -> asyncio.Lock:
    """Return the lock under which the record of that name is removed.

    Who takes it before looking for the record sees it removed, or is seen as a user before.
    """
    return locks.lock(f"image {name}")


def is_loaded(record: ImageRecord) -> bool:
    """Whether the image came from a file: then no registry may have it."""
    return PULLED_LABEL not in record.labels


def used_at(record: ImageRecord) -> datetime:
    """Return when an image was last used; when it came here if it never was."""
    for label in (USED_LABEL, PULLED_LABEL):
        try:
            moment = datetime.fromisoformat(record.labels[label])
        except (KeyError, ValueError):
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return record.created_at or datetime.fromtimestamp(0, UTC)


def render_moment(moment: datetime) -> str:
    """Return the value of a label."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


class Uses:
    """What tasks have begun to use since it was asked last."""

    def __init__(self) -> None:
        self._noted: dict[str, datetime] = {}
        self.news = asyncio.Event()
        """Set when there is something to `take`."""

    def note(self, name: str) -> None:
        """Note that a task uses the image with that record now."""
        self._noted[name] = datetime.now(UTC)
        self.news.set()

    def take(self) -> dict[str, datetime]:
        """Return what was noted since the last call."""
        noted, self._noted = self._noted, {}
        self.news.clear()
        return noted
