"""What has passed in one interval, and what was refused, by ENI; pure, and bounded.

The ENIs share the room: one that has more ways than its share loses the rest, and says so
(`SKIPDATA`); the others don't. What is refused has room of its own, so that a scan of an
ENI's ports takes no room from what passes.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from fargate_agent.network.flow_logs.records import (
    Action,
    Batch,
    LoggedEni,
    Record,
    Sums,
    Way,
    render_nothing,
    render_record,
)

ROOM: Final[Mapping[Action, int]] = {Action.ACCEPT: 60_000, Action.REJECT: 20_000}
"""Ways that all ENIs together may have in an interval; one takes some 400 bytes."""
MOST: Final[Mapping[Action, int]] = {Action.ACCEPT: 20_000, Action.REJECT: 5_000}
"""Ways of one ENI, however few there are."""
LEAST: Final = 100
"""Ways of one ENI, however many there are."""


class Window:
    """One interval after another."""

    def __init__(self, start_s: float) -> None:
        """Begin the first one."""
        self.start_s = start_s
        self._sums: dict[tuple[str, Action], dict[Way, Sums]] = {}
        self._skipped: set[str] = set()

    def add(
        self,
        eni_id: str,
        action: Action,
        way: Way,
        counted: tuple[int, int],
        between_s: tuple[float, float],
        eni_count: int,
    ) -> None:
        """Count packets and bytes of an ENI, which is one of so many, between two times."""
        ways = self._sums.setdefault((eni_id, action), {})
        sums = ways.get(way)
        if sums is None:
            if len(ways) >= share_of(action, eni_count):
                self._skipped.add(eni_id)
                return
            sums = ways[way] = Sums()
        start_s, end_s = between_s
        sums.add(*counted, max(start_s, self.start_s), max(end_s, self.start_s))

    def skip(self, eni_ids: Collection[str]) -> None:
        """Note that something of these ENIs wasn't counted."""
        self._skipped.update(eni_ids)

    def end(self, enis: Collection[LoggedEni], end_s: float) -> Iterator[Batch]:
        """Yield the records of each ENI, and begin the next interval."""
        sums, skipped, start_s = self._sums, self._skipped, self.start_s
        self._sums, self._skipped, self.start_s = {}, set(), end_s
        for eni in enis:
            records = [
                render_record(eni, way, one, action)
                for action in Action
                for way, one in sums.pop((eni.id, action), {}).items()
            ]
            if eni.id in skipped:
                records.append(render_nothing(eni, "SKIPDATA", start_s, end_s))
            elif not records:
                records.append(render_nothing(eni, "NODATA", start_s, end_s))
            records.sort(key=_start)
            yield Batch(eni_id=eni.id, records=tuple(records))


def share_of(action: Action, eni_count: int) -> int:
    """Return how many ways one of so many ENIs may have in an interval."""
    return min(max(ROOM[action] // max(eni_count, 1), LEAST), MOST[action])


def _start(record: Record) -> int:
    return record.start_s
