"""Splunk's HTTP Event Collector: events, and what is said about them.

Source: Splunk documentation, "HTTP Event Collector REST API endpoints", "Troubleshoot HTTP Event
Collector" (the codes) and "About HTTP Event Collector Indexer Acknowledgment"; moby,
daemon/logger/splunk.
"""

import posix
import time

from local.json_text import parse_json
from sending.destination import TryAgain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from network.web_client import Answer, WebClient
    from reading.deadline import Deadline

EVENTS = "/services/collector/event/1.0"
ACKS = "/services/collector/ack"
BAD_EVENT_CODES = (6, 12, 13, 15)
"""Invalid data format, no event, an empty one, wrong fields: it is the event, not the set-up."""
TOO_LARGE = 413
MAX_TOLD_BYTES = 1024
"""Of an answer. Source: moby, daemon/logger/splunk."""
MAX_WAIT_S = 300
"""The longest that a server may ask for with `Retry-After`."""


class BadEventError(Exception):
    """An event will never be taken; the others of its request may be, in another one."""

    def __init__(self, text: str, number: int | None) -> None:
        super().__init__(text)
        self.number = number
        """Its place in the request, from 0; None: nobody says which one."""


class Collector:
    """One server and one token."""

    def __init__(
        self, client: "WebClient", deadline: "Deadline", *, gzip_level: int | None, ask: bool
    ) -> None:
        """Take the level of compression, if any, and whether to ask what was indexed."""
        self._client = client
        self._deadline = deadline
        self._gzip_level = gzip_level
        self._headers: dict[str, str] = {}
        self._channel = _make_channel() if ask else ""
        self._free_at = 0.0

    def set_token(self, token: str) -> None:
        """Say what to authorize requests with."""
        self._headers = {"Authorization": "Splunk " + token}
        if self._channel:
            self._headers["X-Splunk-Request-Channel"] = self._channel

    def verify(self) -> None:
        """Look whether there is a collector.

        Raises:
            OSError: there is none.
        """
        answer = self._client.request("OPTIONS", EVENTS, {}, b"")
        if answer.status != 200:
            raise OSError(f"splunk: failed to verify connection - {_render(answer)}")

    def send(self, events: bytes) -> int | None:
        """Send JSON objects, one after the other; return by what number to ask for them.

        Raises:
            BadEventError: one of them is wrong.
            TryAgain: they can't be taken now.
        """
        headers = self._headers
        if self._gzip_level is not None:
            import zlib

            deflate = zlib.compressobj(self._gzip_level, zlib.DEFLATED, 31)
            events = deflate.compress(events) + deflate.flush()
            headers = {**headers, "Content-Encoding": "gzip"}
        answer = self._post(EVENTS, headers, events)
        found = _read_object(answer)
        if answer.status == 200:
            number = found.get("ackId") if self._channel else None
            return number if isinstance(number, int) else None
        text = f"failed to send event - {_render(answer)}"
        if answer.status == TOO_LARGE:
            raise BadEventError(text, None)
        if answer.status == 400 and found.get("code") in BAD_EVENT_CODES:
            number = found.get("invalid-event-number")
            raise BadEventError(text, number if isinstance(number, int) else None)
        raise TryAgain(text)

    def ask(self, numbers: list[int]) -> list[int]:
        """Return which of these requests are indexed.

        Raises:
            TryAgain: that can't be told now.
        """
        body = b'{"acks":[%b]}' % ",".join(map(str, numbers)).encode()
        answer = self._post(f"{ACKS}?channel={self._channel}", self._headers, body)
        acks = _read_object(answer).get("acks")
        if answer.status != 200 or not isinstance(acks, dict):
            raise TryAgain(f"failed to ask for acknowledgements - {_render(answer)}")
        return [number for number in numbers if acks.get(str(number)) is True]

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _post(self, path: str, headers: dict[str, str], body: bytes) -> "Answer":
        while not self._deadline.is_over() and time.monotonic() < self._free_at:
            self._deadline.rest(self._free_at - time.monotonic())
        try:
            answer = self._client.request("POST", path, headers, body)
        except OSError as error:
            raise TryAgain(str(error)) from error
        pause = answer.headers.get("retry-after", "")
        if answer.status >= 400 and pause.isdecimal():
            self._free_at = time.monotonic() + min(int(pause), MAX_WAIT_S)
        return answer


def _read_object(answer: "Answer") -> dict[str, object]:
    try:
        found = parse_json(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _render(answer: "Answer") -> str:
    said = answer.body[:MAX_TOLD_BYTES].decode(errors="replace").strip()
    return f"{answer.status} - {said}"


def _make_channel() -> str:
    """Make a random UUID. Source: RFC 9562."""
    digits = posix.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
