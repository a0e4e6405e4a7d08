"""Records in a log group of CloudWatch Logs: a stream for each ENI.

Few streams are sent to at a time, so that one that isn't taken doesn't keep the others. What waits
is bounded; what finds no room is lost, and the next interval of its ENI says so.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from fargate_agent.aws.cloudwatch_logs import CloudWatchLogs, LogEvent
from fargate_agent.aws.errors import AwsError, RoleError
from fargate_agent.backoff import Backoff
from fargate_agent.egress.transport import TransferError
from fargate_agent.network.flow_logs.records import Batch
from fargate_agent.parallel import together

MAX_EVENTS: Final = 10_000
MAX_BYTES: Final = 1_048_576
EVENT_BYTES: Final = 26
"""What an event counts besides its text. Source: CloudWatch Logs API, PutLogEvents."""
MAX_WAITING_BYTES: Final = 32 << 20
STREAMS_AT_ONCE: Final = 4
TRIES: Final = 8
"""Of one request; the pauses between them are some five minutes together."""
PAUSES: Final = Backoff(first_s=1, longest_s=120)
FINISH_S: Final = 4.0
"""How long the last records may take when the agent ends."""

log = logging.getLogger(__name__)


class LogGroup:
    """Sends records from a thread to a log group, while it is served."""

    def __init__(
        self,
        logs: CloudWatchLogs,
        group: str,
        pauses: Backoff = PAUSES,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        """Asks nobody yet."""
        self._logs = logs
        self._group = group
        self._pauses = pauses
        self._max_waiting_bytes = max_waiting_bytes
        self._turn = threading.Lock()
        self._waiting: dict[str, deque[tuple[LogEvent, ...]]] = {}
        """By ENI. One that is being sent to is in it too."""
        self._waiting_bytes = 0
        self._lost: set[str] = set()
        self._fault = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests: dict[str, asyncio.Task[bool]] = {}
        """Those under way, by ENI."""
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        """ENIs that have something to send and that nobody sends for."""

    def put(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            for events in split_events(batch):
                self._add(batch.eni_id, events)

    def take_lost(self) -> Collection[str]:
        with self._turn:
            lost, self._lost = self._lost, set()
        return lost

    def _add(self, eni_id: str, events: tuple[LogEvent, ...]) -> None:
        size = _measure(events)
        with self._turn:
            has_room = self._waiting_bytes + size <= self._max_waiting_bytes
            if has_room:
                self._waiting_bytes += size
                is_new = eni_id not in self._waiting
                self._waiting.setdefault(eni_id, deque()).append(events)
                if is_new and self._loop is not None:
                    self._loop.call_soon_threadsafe(self._ready.put_nowait, eni_id)
        if not has_room:
            self._note_lost(eni_id, "too many records wait to be sent")

    async def serve(self) -> None:
        """Send what comes, until cancelled."""
        with self._turn:
            self._loop = asyncio.get_running_loop()
            for eni_id in self._waiting:
                self._ready.put_nowait(eni_id)
        await together(self._work() for _ in range(STREAMS_AT_ONCE))

    async def finish(self) -> None:
        """Send what is left as far as it can be sent at once, after `serve`."""
        with self._turn:
            self._loop = None
            left = list(self._waiting)
        shares = [left[n::STREAMS_AT_ONCE] for n in range(STREAMS_AT_ONCE)]
        try:
            async with asyncio.timeout(FINISH_S):
                await together(self._send_last(share) for share in shares)
        except TimeoutError:
            for request in self._requests.values():
                request.cancel()
        if self._requests:
            await asyncio.wait(self._requests.values())
        count = sum(len(events) for waiting in self._waiting.values() for events in waiting)
        if count:
            why = f": {self._fault}" if self._fault else ""
            log.error("flow logs: %d records weren't sent to %s%s", count, self._group, why)

    async def _send_last(self, eni_ids: Collection[str]) -> None:
        for eni_id in eni_ids:
            while await self._try(eni_id, self._waiting[eni_id][0]):
                if not self._drop_first(eni_id):
                    break

    async def _work(self) -> None:
        while True:
            eni_id = await self._ready.get()
            try:
                await self._send_first(eni_id)
            except BaseException:
                self._ready.put_nowait(eni_id)
                raise
            if self._drop_first(eni_id):
                self._ready.put_nowait(eni_id)

    async def _send_first(self, eni_id: str) -> None:
        """Send what an ENI has waited with longest, or lose it after many tries."""
        events = self._waiting[eni_id][0]
        for number, pause_s in enumerate(self._pauses.pauses_s(), start=1):
            if await self._try(eni_id, events):
                return
            if number == TRIES:
                self._note_lost(eni_id, f"not taken in {TRIES} tries")
                return
            await asyncio.sleep(pause_s)

    async def _try(self, eni_id: str, events: Sequence[LogEvent]) -> bool:
        """Send a request, or wait for it if it is under way; as `_send`.

        A cancellation doesn't end the request: it may have been taken already.
        """
        request = self._requests.get(eni_id)
        if request is None:
            request = asyncio.create_task(self._send(eni_id, events))
            self._requests[eni_id] = request
        taken = await asyncio.shield(request)
        del self._requests[eni_id]
        return taken

    async def _send(self, eni_id: str, events: Sequence[LogEvent]) -> bool:
        """Send a request; False: another try may succeed. What is refused for good is lost."""
        try:
            rejected = await self._logs.put(self._group, f"{eni_id}-all", events)
        except AwsError as error:
            if error.may_pass:
                self._note_fault(str(error))
                return False
            self._note_lost(eni_id, str(error))
        except (RoleError, TransferError) as error:
            self._note_fault(str(error))
            return False
        else:
            if rejected:
                self._note_lost(eni_id, f"{rejected} records were too old, or of the future")
            else:
                self._fault = ""
        return True

    def _drop_first(self, eni_id: str) -> bool:
        """Forget what was sent; whether the ENI has more."""
        with self._turn:
            waiting = self._waiting[eni_id]
            self._waiting_bytes -= _measure(waiting.popleft())
            if not waiting:
                del self._waiting[eni_id]
            return bool(waiting)

    def _note_lost(self, eni_id: str, why: str) -> None:
        with self._turn:
            self._lost.add(eni_id)
        self._note_fault(f"records are lost: {why}")

    def _note_fault(self, fault: str) -> None:
        """Log a fault once, until something was sent again."""
        if not self._fault:
            log.error("flow logs: log group %s: %s", self._group, fault)
        self._fault = fault


def split_events(batch: Batch) -> Iterator[tuple[LogEvent, ...]]:
    """Yield the events of a batch, in order, as many at a time as one request may have.

    An interval is far shorter than the 24 hours that a request may span.
    """
    events: list[LogEvent] = []
    size = 0
    for record in batch.records:
        event = LogEvent(timestamp_ms=record.start_s * 1000, message=record.text)
        event_bytes = _measure((event,))
        if events and (len(events) == MAX_EVENTS or size + event_bytes > MAX_BYTES):
            yield tuple(events)
            events, size = [], 0
        events.append(event)
        size += event_bytes
    if events:
        yield tuple(events)


def _measure(events: Sequence[LogEvent]) -> int:
    """Return the bytes of events as the service counts them; a record is ASCII."""
    return sum(len(event.message) + EVENT_BYTES for event in events)
