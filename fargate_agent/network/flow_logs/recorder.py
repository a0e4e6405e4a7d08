"""The thread that reads what the kernel tells of flows, and ends one interval after another.

It owns all that is counted, so nothing is locked, and nothing is counted twice. What others want of
it, they leave in a queue.
"""

import logging
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.flow_logs.kernel import (
    ANSWER_TIMEOUT_S,
    ENDED,
    FAMILY_BYTES,
    NEW,
    LostError,
    ask_for_all,
    end_refused,
    is_done,
    open_flows,
    open_refused,
    read_all,
)
from fargate_agent.network.flow_logs.records import Batch, LoggedEni
from fargate_agent.network.flow_logs.refused import note_refused, parse_packet
from fargate_agent.network.flow_logs.tracked import Tracking, parse_flow
from fargate_agent.network.flow_logs.window import Window

LISTED_EVERY_S: Final = 60.0
"""How often all flows are listed, at least: those whose end the kernel doesn't tell lose no more.
"""
SKIPPED: Final = "intervals of which something is missing have a SKIPDATA record"
GATHERED_S: Final = 0.1
"""For how long what comes is left to gather; reading it at once would wake this for each flow."""

log = logging.getLogger(__name__)

Put = Callable[[Sequence[Batch]], None]


class Sink(Protocol):
    """Where records go. Both methods are called by the thread of the recorder."""

    def put(self, batches: Sequence[Batch]) -> None:
        """Take the records of an interval; raises nothing."""
        ...

    def take_lost(self) -> Collection[str]:
        """Return the ids of ENIs of which records were lost since this was asked last."""
        ...


@dataclass(slots=True)
class _Change:
    """An ENI that is logged from now on, or isn't any more."""

    eni: LoggedEni
    is_open: bool


@dataclass(slots=True)
class _Wake:
    """A pipe by which the thread is told to look into its queue."""

    ends: tuple[int, int] = field(default_factory=lambda: os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it has been told already
            os.write(self.ends[1], b"!")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.ends[0], 4096)

    def close(self) -> None:
        for end in self.ends:
            os.close(end)


class Recorder:
    """Counts flows of ENIs from `start` to `stop`."""

    def __init__(
        self,
        sink: Sink,
        interval_s: float,
        log_group: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`log_group` is that of the packet filter's rules. Touches nothing."""
        self._sink = sink
        self._interval_s = interval_s
        self._log_group = log_group
        self._clock = clock
        self._changes: queue.SimpleQueue[_Change] = queue.SimpleQueue()
        self._wake: _Wake | None = None
        self._thread = threading.Thread(target=self._run, name="flow logs", daemon=True)
        self._is_stopping = threading.Event()
        self.is_counting: Final = threading.Event()
        """Set when it is known what flows had counted before."""
        self._enis: dict[bytes, LoggedEni] = {}
        """By address. Those that have gone stay until their last records are written, or another
        has the address."""
        self._logged: dict[str, LoggedEni] = {}
        """By id, those that have gone too."""
        self._gone: set[str] = set()
        self._has_lost = False
        self._window = Window(0.0)
        self._tracking = Tracking(self._window, self._enis, self._count_enis)
        self._is_listing = False
        self._sockets = ExitStack()
        self._flows: socket.socket | None = None
        self._refused: socket.socket | None = None

    def open(self, eni: LoggedEni) -> None:
        """Log an ENI from now on; one that is logged already is fine."""
        self._change(_Change(eni, is_open=True))

    def close(self, eni: LoggedEni) -> None:
        """Log an ENI no more; what it has had is still written."""
        self._change(_Change(eni, is_open=False))

    def start(self) -> None:
        """Begin to count.

        Raises:
            NetlinkError: the kernel tells of no flows.
        """
        with ExitStack() as stack:
            self._flows = stack.enter_context(open_flows())
            wake = _Wake()
            stack.callback(wake.close)
            self._sockets = stack.pop_all()
        self._wake = wake
        self._thread.start()

    def hear_refused(self) -> None:
        """Count also what is refused; before `start`.

        Raises:
            NetlinkError: the kernel doesn't tell, or somebody else has the group.
        """
        self._refused = open_refused(self._log_group)

    def stop(self) -> None:
        """Count what is left, write the last records, and return. Blocks."""
        self._is_stopping.set()
        if self._wake is not None:
            self._wake.ring()
            self._thread.join()
            self._wake = None
        self._sockets.close()
        if self._refused is not None:
            self._refused.close()

    def _change(self, change: _Change) -> None:
        if self._is_stopping.is_set():
            return
        self._changes.put(change)
        if self._wake is not None:
            self._wake.ring()

    def _count_enis(self) -> int:
        return len(self._logged)

    def _run(self) -> None:
        self._window.start_s = self._clock()
        interval_end = time.monotonic() + self._interval_s
        listed = time.monotonic()
        self._apply_changes()
        self._list_all()
        self.is_counting.set()
        while not self._is_stopping.is_set():
            due = min(interval_end, listed + LISTED_EVERY_S)
            self._wait(due - time.monotonic())
            self._read()
            self._apply_changes()
            now = time.monotonic()
            if now >= due:
                self._list_all()
                listed = now
            if now >= interval_end:
                self._end_interval()
                interval_end = max(interval_end + self._interval_s, now)
        self._finish()

    def _wait(self, timeout_s: float) -> None:
        """Return when there is something to do; what has come since is left to gather."""
        if self._wake is None or self._flows is None:
            return
        bell = self._wake.ends[0]
        ready = _wait_for((bell, self._flows, self._refused), timeout_s)
        if ready and bell not in ready:
            _wait_for((bell,), min(GATHERED_S, timeout_s))
        self._wake.clear()

    def _read(self) -> None:
        """Count what the kernel has told. All of it comes before the changes that wait."""
        for link, note in ((self._flows, self._note_flow), (self._refused, self._note_refused)):
            if link is None:
                continue
            try:
                read_all(link, note)
            except (LostError, OSError):
                self._window.skip(self._logged)
                if not self._has_lost:
                    log.warning("flow logs: the kernel told more than could be read: %s", SKIPPED)
                self._has_lost = True

    def _note_flow(self, kind: int, payload: bytes) -> None:
        if kind not in {NEW, ENDED}:
            if self._is_listing:  # else it is what is left of a listing that was given up
                self._is_listing = not is_done(kind, payload)
            return
        flow = parse_flow(payload[FAMILY_BYTES:], self._enis)
        if flow is None:
            return
        if kind == ENDED:
            self._tracking.note_ended(flow, self._clock())
        else:
            self._tracking.note_listed(flow, self._clock())

    def _note_refused(self, kind: int, payload: bytes) -> None:
        refused = parse_packet(kind, payload)
        if refused is not None:
            now_s = self._clock()
            note_refused(refused, self._window, self._enis, now_s, self._count_enis())

    def _list_all(self) -> None:
        """Count all flows as they are now."""
        if self._flows is None:
            return
        self._tracking.begin_listing(self._clock())
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            ask_for_all(self._flows)
            self._is_listing = True
            while self._is_listing:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError("no answer")
                _wait_for((self._flows,), left_s)
                self._read()
        except (NetlinkError, OSError) as error:
            self._is_listing = False
            self._window.skip(self._logged)
            log.error("flow logs: flows can't be listed: %s", error)
            return
        self._tracking.end_listing()

    def _apply_changes(self) -> None:
        while not self._changes.empty():
            change = self._changes.get()
            if change.is_open:
                self._enis.update(dict.fromkeys(change.eni.addresses, change.eni))
                self._logged[change.eni.id] = change.eni
                self._gone.discard(change.eni.id)
            else:
                self._gone.add(change.eni.id)

    def _end_interval(self) -> None:
        self._sink.put(list(self._window.end(self._logged.values(), self._clock())))
        self._window.skip(self._logged.keys() & self._sink.take_lost())
        for address, eni in list(self._enis.items()):
            if eni.id in self._gone:
                del self._enis[address]
        for eni_id in self._gone:
            self._logged.pop(eni_id, None)
        self._gone.clear()

    def _finish(self) -> None:
        self._apply_changes()
        if self._refused is not None:
            with suppress(OSError):
                end_refused(self._refused, self._log_group)
        self._list_all()
        self._end_interval()


def _wait_for(files: Iterable[socket.socket | int | None], timeout_s: float) -> list[int]:
    """Return which files can be read, by number, as soon as one can."""
    poll = select.poll()
    for file in files:
        if file is not None:
            poll.register(file, select.POLLIN)
    return [number for number, _ in poll.poll(max(timeout_s, 0.0) * 1000)]
