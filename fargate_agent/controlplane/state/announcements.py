"""Who waits for what: something has been committed that somebody may want to look at.

An announcement has a topic and nothing else; whoever is woken reads the database. It may come more
often than there is news, never less often.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

CHANNEL: Final = "fargate"
"""Where PostgreSQL carries announcements from one process to the others."""

AGENTS: Final = "agents"
"""An agent has come, gone, or has no task any more."""
EVENTS: Final = "events"
NAMES: Final = "names"
"""What private zones are made of has changed."""
SECURITY_GROUPS: Final = "security groups"
"""The version of a security group has moved on; see `vpc.groups`."""
SERVICES: Final = "services"


def instance_topic(instance_id: str) -> str:
    """Name the topic of what an agent has to be sent."""
    return f"instance {instance_id}"


class Announcements:
    """The topics that someone in this process waits for."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def listening(self, topic: str) -> Iterator[asyncio.Event]:
        """Give an event that is set by each announcement; the listener clears it."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(topic, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(topic, None)

    def tell(self, topics: Iterable[str]) -> None:
        """Wake those who wait for one of the topics."""
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()

    def tell_all(self) -> None:
        """Wake everyone: announcements may have been missed."""
        self.tell(list(self._waiting))
