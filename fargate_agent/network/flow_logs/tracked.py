"""What the kernel's connection tracking has counted since it was asked last; pure.

Each flow is remembered with its counters, so that only what is new is added to the window. The
kernel tells of a flow that ends with its last counters; what it says of it in a listing that was
under way counts no more.

Source of all numbers: Linux, include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from fargate_agent.network.blocking import read_attributes
from fargate_agent.network.flow_logs.records import Action, LoggedEni, Way
from fargate_agent.network.flow_logs.window import Window

_ORIGINAL, _REPLY, _COUNTERS_ORIGINAL, _COUNTERS_REPLY, _ID = 1, 2, 9, 10, 12
_ADDRESSES, _PROTOCOL = 1, 2
_V4_SOURCE, _V4_DESTINATION, _V6_SOURCE, _V6_DESTINATION = 1, 2, 3, 4
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_PACKETS, _BYTES = 1, 2
_PORT: Final = struct.Struct("!H")
_COUNT: Final = struct.Struct("!Q")

KNOWN: Final = 262_144
"""Flows that are remembered; as many as the kernel tracks by default on a large machine. Source:
Linux, Documentation/networking/nf_conntrack-sysctl.rst, `nf_conntrack_max`."""
LEAST_KNOWN: Final = 1_000
"""Of one ENI, however many there are."""
ENDED_S: Final = 5.0
"""For how long after its end a flow may still be listed."""

Enis = Mapping[bytes, LoggedEni]


@dataclass(frozen=True, slots=True)
class Tracked:
    """What the kernel says of one flow."""

    key: bytes
    """Tells it from others, and from a later one with the same addresses and ports."""
    original: Way
    reply: Way
    counters: tuple[int, int, int, int] | None
    """Packets and bytes, then those of the answers; None: it began before they were counted."""


@dataclass(slots=True)
class _Known:
    counters: tuple[int, int, int, int]
    seen_s: float
    listing: int
    eni_id: str


def parse_flow(attributes: bytes, enis: Enis) -> Tracked | None:
    """Read a flow; None if it is of none of the ENIs."""
    found = read_attributes(attributes)
    original, reply = (read_attributes(found.get(one, b"")) for one in (_ORIGINAL, _REPLY))
    begun, answered = (_read_addresses(one) for one in (original, reply))
    if begun[0] not in enis and answered[0] not in enis:
        return None
    counts = [_read_counts(found.get(one)) for one in (_COUNTERS_ORIGINAL, _COUNTERS_REPLY)]
    counters = None
    if counts[0] is not None and counts[1] is not None:
        counters = (*counts[0], *counts[1])
    return Tracked(
        key=found.get(_ID, b"") + found.get(_ORIGINAL, b""),
        original=_read_way(begun, original),
        reply=_read_way(answered, reply),
        counters=counters,
    )


def _read_addresses(direction: Mapping[int, bytes]) -> tuple[bytes, bytes]:
    found = read_attributes(direction.get(_ADDRESSES, b""))
    if _V4_SOURCE in found:
        return found[_V4_SOURCE], found.get(_V4_DESTINATION, b"")
    return found.get(_V6_SOURCE, b""), found.get(_V6_DESTINATION, b"")


def _read_way(addresses: tuple[bytes, bytes], direction: Mapping[int, bytes]) -> Way:
    found = read_attributes(direction.get(_PROTOCOL, b""))
    source, destination = (
        _PORT.unpack(found[one])[0] if one in found else 0
        for one in (_SOURCE_PORT, _DESTINATION_PORT)
    )
    return Way(*addresses, source, destination, found.get(_NUMBER, b"\0")[0])


def _read_counts(attributes: bytes | None) -> tuple[int, int] | None:
    if attributes is None:
        return None
    found = read_attributes(attributes)
    if _PACKETS not in found or _BYTES not in found:
        return None
    return _COUNT.unpack(found[_PACKETS])[0], _COUNT.unpack(found[_BYTES])[0]


class Tracking:
    """The flows of the ENIs that are logged, as far as they are remembered."""

    def __init__(self, window: Window, enis: Enis, count_enis: Callable[[], int]) -> None:
        """`enis` are those that there are, by address, and are kept up to date by others."""
        self._window = window
        self._enis = enis
        self._count_enis = count_enis
        self._known: dict[bytes, _Known] = {}
        self._counts: dict[str, int] = {}
        """How many are remembered, by ENI."""
        self._ended: OrderedDict[bytes, float] = OrderedDict()
        self._listing = 0
        self._listed_s: float | None = None
        """When the last listing was asked for that is whole; None: there was none yet."""
        self._asked_s = 0.0

    def begin_listing(self, now_s: float) -> None:
        """Expect all flows; what isn't among them has gone."""
        self._listing += 1
        self._asked_s = now_s

    def end_listing(self) -> None:
        """Forget the flows that weren't listed. What they counted last isn't known."""
        self._listed_s = self._asked_s
        gone = [key for key, known in self._known.items() if known.listing != self._listing]
        self._window.skip({self._known[key].eni_id for key in gone})
        for key in gone:
            self._forget(key)

    def note_listed(self, flow: Tracked, now_s: float) -> None:
        """Take what a listing says of a flow."""
        if flow.key in self._ended:
            return
        enis = self._find(flow)
        if flow.counters is None or not enis:
            self._window.skip([eni.id for eni, _ in enis])
            return
        known = self._known.get(flow.key)
        if known is None:
            if not self._has_room(enis[0][0].id):
                self._window.skip([eni.id for eni, _ in enis])  # it is counted when it ends
                return
            if self._listed_s is not None:
                self._add(flow.counters, enis, (self._listed_s, now_s))
            self._remember(flow, enis[0][0].id, now_s)
            return
        self._add(_subtract(flow.counters, known.counters), enis, (known.seen_s, now_s))
        known.counters, known.seen_s, known.listing = flow.counters, now_s, self._listing

    def note_ended(self, flow: Tracked, now_s: float) -> None:
        """Take the last counters of a flow."""
        enis = self._find(flow)
        known = self._known.get(flow.key)
        self._keep_ended(flow.key, now_s)
        if known is not None:
            self._forget(flow.key)
        if flow.counters is None:
            self._window.skip([eni.id for eni, _ in enis])
        elif known is not None:
            self._add(_subtract(flow.counters, known.counters), enis, (known.seen_s, now_s))
        elif self._listed_s is not None:
            self._add(flow.counters, enis, (self._listed_s, now_s))

    def _find(self, flow: Tracked) -> list[tuple[LoggedEni, Way]]:
        """Return the ENIs of a flow, each with the way of the packets that began it.

        It is as the ENI sees it: the machine may have translated what another sees.
        """
        sides = (
            (flow.original.source, flow.original),
            (flow.reply.source, flow.reply.back()),
        )
        return [(self._enis[address], way) for address, way in sides if address in self._enis]

    def _add(
        self,
        counters: tuple[int, int, int, int],
        enis: Collection[tuple[LoggedEni, Way]],
        between_s: tuple[float, float],
    ) -> None:
        count = self._count_enis()
        for eni, way in enis:
            for one, counted in ((way, counters[:2]), (way.back(), counters[2:])):
                if counted[0]:
                    self._window.add(eni.id, Action.ACCEPT, one, counted, between_s, count)

    def _has_room(self, eni_id: str) -> bool:
        share = max(KNOWN // max(self._count_enis(), 1), LEAST_KNOWN)
        return self._counts.get(eni_id, 0) < share

    def _remember(self, flow: Tracked, eni_id: str, now_s: float) -> None:
        if flow.counters is not None:
            self._known[flow.key] = _Known(flow.counters, now_s, self._listing, eni_id)
            self._counts[eni_id] = self._counts.get(eni_id, 0) + 1

    def _forget(self, key: bytes) -> None:
        eni_id = self._known.pop(key).eni_id
        self._counts[eni_id] -= 1
        if not self._counts[eni_id]:
            del self._counts[eni_id]

    def _keep_ended(self, key: bytes, now_s: float) -> None:
        while self._ended and next(iter(self._ended.values())) < now_s - ENDED_S:
            self._ended.popitem(last=False)
        self._ended[key] = now_s


def _subtract(
    now: tuple[int, int, int, int], before: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """Return what was counted in between; all of it where somebody has begun to count anew."""
    if any(one < other for one, other in zip(now, before, strict=True)):
        return now
    return (now[0] - before[0], now[1] - before[1], now[2] - before[2], now[3] - before[3])
