"""How long the parts of a task's start take, noted while it is done, forgotten when it runs.

Kept in memory only. Nothing depends on it: a task that was adopted has none.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

MAX_PHASES: Final = 200
"""Of one start; a task definition has some ten containers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One part of a start that is over."""

    name: str
    """`netns`, `prepare`, `eni`, `names`, `metadata`, `volumes`, `pull`, `create` or `start`;
    `total` is all of it."""
    subject: str
    """Of what, e.g. the name of a container."""
    began_s: float
    """Seconds since 1970."""
    took_s: float
    failed: bool = False


class Phases:
    """Those of one task. A start is over when the task runs, or ends before."""

    def __init__(self) -> None:
        self._began_s, self._clock_s = time.time(), time.monotonic()
        self._done: list[Phase] = []
        self._total: Phase | None = None
        self._is_taken = False

    def end(self, *, failed: bool) -> None:
        """The start is over; may be repeated."""
        if self._total is None:
            self._total = Phase(
                name="total",
                subject="",
                began_s=self._began_s,
                took_s=time.monotonic() - self._clock_s,
                failed=failed,
            )

    def take(self) -> tuple[Phase, ...]:
        """Return the whole start and then its parts, once, when it is over; else nothing."""
        if self._total is None or self._is_taken:
            return ()
        self._is_taken = True
        found, self._done = (self._total, *self._done), []
        return found

    def note(self, phase: Phase) -> None:
        """Keep a part, if the start isn't over."""
        if self._total is None and len(self._done) < MAX_PHASES:
            self._done.append(phase)


current_phases: Final[ContextVar[Phases | None]] = ContextVar("current_phases", default=None)
"""Those of the task that the running coroutine works for, while it is new."""


@contextmanager
def timing(name: str, subject: str) -> Iterator[None]:
    """Note how long the body takes, for the task that the running coroutine works for."""
    phases = current_phases.get()
    if phases is None:
        yield
        return
    began_s, clock_s, failed = time.time(), time.monotonic(), True
    try:
        yield
        failed = False
    finally:
        took_s = time.monotonic() - clock_s
        phases.note(
            Phase(name=name, subject=subject, began_s=began_s, took_s=took_s, failed=failed)
        )
