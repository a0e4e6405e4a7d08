"""Sends lines to Splunk's HTTP Event Collector.

Source: moby, daemon/logger/splunk; shim-loggers-for-containerd (the flags).
"""

import posix
import time

from destinations.hec import BadEventError, Collector
from local.json_text import parse_json, quote
from local.local_copy import escape
from network.connection import Connector
from network.endpoints import Endpoint
from network.web_client import WebClient
from reading.flags import parse_bool, parse_buffer_size, parse_duration
from reading.lines import Lines
from sending.destination import Destination, Setup, TryAgain
from sending.tags import load_env, read_attributes, render_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from network.tls import Context, TlsSocket

FORMATS = ("inline", "json", "raw")
LEVELS = tuple(map(str, range(-1, 10)))
MAX_EVENTS = 1000
"""In one request. Source: moby, daemon/logger/splunk."""
MAX_HELD_BYTES = 512 * 1024
"""So much is sent at the latest, and half of what the buffer holds."""
ACK_TIMEOUT = "5m"
"""After so long, what isn't indexed is sent again. Source: Splunk documentation, "About HTTP Event
Collector Indexer Acknowledgment"."""
MIN_ASK_S, MAX_ASK_S = 0.1, 10.0
JSON_STARTS = b'{["-0123456789tfn \t\r'


class Splunk(Destination):
    """Waits for more lines, and sends as many as a request may have."""

    linger_s = 1.0
    """Shorter than Docker's 5 s: a line is seen sooner, and a busy container fills its requests."""

    def __init__(
        self,
        setup: Setup,
        collector: Collector,
        connector: Connector,
        token_place: Endpoint | None,
    ) -> None:
        flags = setup.flags
        self._token_place = token_place
        self._setup = setup
        self._collector = collector
        self._connector = connector
        self._form = Format(flags)
        self._asks = parse_bool(flags, "splunk-index-acknowledgment", default=False)
        self._ack_s = parse_duration(flags.get("splunk-ack-timeout", ACK_TIMEOUT))
        self._max_held_bytes = min(MAX_HELD_BYTES, parse_buffer_size(flags) // 2)
        self._max_events = MAX_EVENTS
        self._waiting: list[Lines] = []
        self._count = self._cost = 0
        self._unacknowledged: dict[int, list[Lines]] = {}
        self._ack_due = 0.0

    def open(self) -> None:
        flags = self._setup.flags
        self._form.set_attributes(read_attributes(self._setup, self._connector))
        self._collector.set_token(_read_token(self._setup, self._token_place))
        if parse_bool(flags, "splunk-verify-connection", default=True):
            self._collector.verify()

    def add(self, lines: Lines) -> bool:
        self._waiting.append(lines)
        self._count += lines.count()
        self._cost += lines.cost
        is_much = self._count >= MAX_EVENTS and not self._asks
        return is_much or self._cost >= self._max_held_bytes

    def flush(self) -> None:
        while self._waiting:
            self._send_some()
        if self._unacknowledged:
            self._wait_for_acks()
        self._count = self._cost = 0

    def close(self) -> None:
        self._collector.close()

    def _send_some(self) -> None:
        """Send what fits into a request; it waits on if it isn't taken."""
        batch = self._take_batch()
        try:
            events = b"".join(map(self._form.render, batch))
            number = self._collector.send(events) if events else None
        except BadEventError as error:
            self._waiting[:0] = self._leave_out(batch, error)
        except TryAgain:
            self._waiting[:0] = batch
            raise
        else:
            self._max_events = min(MAX_EVENTS, self._max_events * 2)
            if number is not None:
                # A server that has forgotten everything begins to count anew.
                self._waiting += self._unacknowledged.pop(number, [])
                self._unacknowledged[number] = batch
                self._ack_due = time.monotonic() + self._ack_s

    def _take_batch(self) -> list[Lines]:
        batch: list[Lines] = []
        room = self._max_events
        while self._waiting and room:
            lines = self._waiting.pop(0)
            texts = lines.text.split(b"\n", room)
            if len(texts) > room:
                self._waiting.insert(0, _replace_text(lines, texts.pop()))
                lines = _replace_text(lines, b"\n".join(texts))
            room -= len(texts)
            batch.append(lines)
        return batch

    def _leave_out(self, batch: list[Lines], error: BadEventError) -> list[Lines]:
        """Return a batch without the event that the server refuses."""
        number = error.number
        if number is None:
            if self._max_events > 1:
                self._max_events = max(1, self._max_events // 4)
                return batch
            number = 0
        self._setup.reports.loss(str(error))
        for place, lines in enumerate(batch):
            texts = lines.text.split(b"\n")
            sent = [at for at, text in enumerate(texts) if self._form.takes(text)]
            if number < len(sent):
                del texts[sent[number]]
                rest = [_replace_text(lines, b"\n".join(texts))] if texts else []
                self.refused += 1
                return batch[:place] + rest + batch[place + 1 :]
            number -= len(sent)
        self.refused += sum(lines.count() for lines in batch)
        return []  # the server counts otherwise: all of it would be refused for ever

    def _wait_for_acks(self) -> None:
        pause_s = MIN_ASK_S
        while True:
            for number in self._collector.ask(list(self._unacknowledged)):
                del self._unacknowledged[number]
            if not self._unacknowledged:
                return
            if time.monotonic() > self._ack_due:
                for batch in self._unacknowledged.values():
                    self._waiting += batch
                self._unacknowledged.clear()
                raise TryAgain(f"not indexed within {self._ack_s:g} s")
            if self._setup.deadline.is_over():
                raise TryAgain("not indexed yet")
            self._setup.deadline.rest(pause_s)
            pause_s = min(pause_s * 2, MAX_ASK_S)


class Format:
    """Renders events."""

    def __init__(self, flags: dict[str, str]) -> None:
        """Read the flags.

        Raises:
            ValueError: the format or the tag can't be.
        """
        self._kind = flags.get("splunk-format", "inline")
        if self._kind not in FORMATS:
            raise ValueError(
                f"Unknown format specified {self._kind}, supported formats are inline, json and raw"
            )
        name = "splunk-tag" if "splunk-tag" in flags else "tag"
        self._tag = render_tag(flags, name).strip()
        meta = b',"host":' + quote(posix.uname().nodename)
        for field in ("source", "sourcetype", "index"):
            if "splunk-" + field in flags:
                meta += b',"%b":%b' % (field.encode(), quote(flags["splunk-" + field]))
        self._meta = meta + b"}"
        self._begin = self._end = b""

    def set_attributes(self, attributes: dict[str, str]) -> None:
        """Say what every event holds beside the line."""
        if self._kind == "raw":
            words = [self._tag] if self._tag else []
            words += [f"{name}={value}" for name, value in attributes.items()]
            self._begin = b'{"event":' + quote("".join([word + " " for word in words]))[:-1]
            return
        self._begin = b'{"event":{"line":'
        if self._tag:
            self._end = b',"tag":' + quote(self._tag)
        if attributes:
            pairs = [b"%b:%b" % (quote(name), quote(value)) for name, value in attributes.items()]
            self._end += b',"attrs":{%b}' % b",".join(pairs)
        self._end += b"}"

    def takes(self, line: bytes) -> bool:
        """Whether a line makes an event: Splunk refuses those that are blank."""
        return self._kind != "raw" or bool(line.strip())

    def render(self, lines: Lines) -> bytes:
        """Make one JSON object of each line."""
        microseconds = lines.time_ns // 1000
        end = b',"time":"%d.%06d"' % divmod(microseconds, 10**6) + self._meta
        if self._kind == "raw":
            texts = [text for text in lines.text.split(b"\n") if text.strip()]
            return _wrap(self._begin, b"\n".join(texts), b'"' + end) if texts else b""
        end = b',"source":"%b"' % lines.stream.encode() + self._end + end
        if self._kind == "inline":
            return _wrap(self._begin + b'"', lines.text, b'"' + end)
        texts = lines.text.split(b"\n")
        return b"".join([b"%b%b%b" % (self._begin, _render_value(text), end) for text in texts])


def make(setup: Setup) -> Splunk:
    """Read the flags.

    Raises:
        ValueError: one of them is missing, or can't be.
        OSError: the certificates, or the container's environment, can't be read.
    """
    flags = setup.flags
    load_env(flags)
    if "splunk-url" not in flags:
        raise ValueError("splunk-url is required")
    if "splunk-token" not in flags and "splunk-token-endpoint" not in flags:
        raise ValueError("splunk-token is required")
    level = None
    if parse_bool(flags, "splunk-gzip", default=False):
        text = flags.get("splunk-gzip-level", "-1")
        if text not in LEVELS:
            raise ValueError(
                f"not supported level '{text}' for splunk-gzip-level "
                "(supported values between -1 and 9)"
            )
        level = int(text)
    connector = NamingConnector(flags, setup)
    verify = not parse_bool(flags, "splunk-insecureskipverify", default=False)
    url = flags["splunk-url"].removesuffix("/")
    ca_path = flags.get("splunk-capath", "")
    try:
        client = WebClient(url, connector, setup.deadline, ca_path=ca_path, verify=verify)
    except ValueError:
        form = "scheme://dns_name_or_ip:port"
        raise ValueError(f"splunk: expected format {form} for splunk-url") from None
    asks = parse_bool(flags, "splunk-index-acknowledgment", default=False)
    collector = Collector(client, setup.deadline, gzip_level=level, ask=asks)
    place, path = flags.get("splunk-token-endpoint", ""), flags.get("container-id", "")
    endpoint = (
        Endpoint(place, connector, setup.deadline, "/splunk-token/" + path) if place else None
    )
    return Splunk(setup, collector, connector, endpoint)


class NamingConnector(Connector):
    """Expects the name in the server's certificate that `splunk-caname` says."""

    def __init__(self, flags: dict[str, str], setup: Setup) -> None:
        super().__init__(flags, setup.deadline)
        self._ca_name = flags.get("splunk-caname", "")

    def secure(self, sock: "socket", host: str, context: "Context") -> "TlsSocket":
        return super().secure(sock, self._ca_name or host, context)


def _read_token(setup: Setup, endpoint: Endpoint | None) -> str:
    if endpoint is None:
        return setup.flags["splunk-token"]
    place = setup.flags["splunk-token-endpoint"]
    try:
        answer = parse_json(endpoint.fetch())
    except ValueError:
        raise ValueError(f"{place} returned no JSON") from None
    token = answer.get("token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ValueError(f"{place} returned no splunk token")
    if not token:
        raise ValueError(f"{place} returned an empty splunk token")
    return token


def _replace_text(lines: Lines, text: bytes) -> Lines:
    return Lines(lines.stream, lines.time_ns, text, lines.partial, goes_on=lines.goes_on)


def _wrap(begin: bytes, text: bytes, end: bytes) -> bytes:
    return begin + escape(text).replace(b"\n", end + begin) + end


def _render_value(text: bytes) -> bytes:
    """Return a line that is JSON as it is, and any other one as a string."""
    if text[:1] in JSON_STARTS:
        try:
            parse_json(text)
        except ValueError:
            return quote(text)
        return text
    return quote(text)
