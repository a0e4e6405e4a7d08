"""Sends what a container prints to CloudWatch Logs.

Source: shim-loggers-for-containerd and moby's daemon/logger/awslogs: flags, defaults, texts.
"""

import posix
import sys
import time

from destinations.aws_answers import Fault
from destinations.cloudwatch import (
    BUSY,
    NOT_FOUND,
    REFUSED,
    SERVER_ERROR,
    TOO_LARGE,
    TOO_MANY,
    CloudWatchLogs,
    LogStream,
)
from destinations.events import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_TEXT_BYTES,
    Events,
    count_rejected,
    render_block,
    render_lines,
    take_batch,
)
from destinations.task_credentials import Credentials, EndpointCredentials, FileCredentials
from network.connection import Connector
from network.web_client import WebClient
from reading.deadline import Deadline
from reading.flags import parse_bool, parse_buffer_size
from reading.lines import Lines
from sending.destination import Destination, Setup, TryAgain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from destinations.multiline import Joiner

REQUIRED = ("awslogs-group", "awslogs-region", "awslogs-stream")
MULTILINE = ("awslogs-datetime-format", "awslogs-multiline-pattern")
"""The first one wins."""
BEGUN_ANEW = b"LOGGER_BEGUN_ANEW"
FORMAT = "json/emf"
LINGER_S = 5.0
START_S = 30.0
"""For everything that has to be done before the container may start."""
MIN_BATCH_BYTES = 16 * 1024
"""A batch shrinks down to this when the service is too slow for larger ones."""
FIRST_PAUSE_S = 0.25
RETRIES_OF_REFUSAL = 1
RETRIES_OF_CONNECTION = 2
RETRIES_OF_BUSY = 5
"""How often a start is tried again, after pauses that double."""


class StartLimit(Deadline):
    """The deadline of this program, and a sooner one while it starts."""

    def __init__(self, whole: Deadline) -> None:
        super().__init__()
        self._whole = whole

    def left_s(self, at_most: float) -> float:
        return self._whole.left_s(super().left_s(at_most))

    def lift(self) -> None:
        """The start is over."""
        self.at = float("inf")


class AwsLogs(Destination):
    """A log stream."""

    max_line_bytes = MAX_TEXT_BYTES
    linger_s = LINGER_S

    def __init__(
        self, setup: Setup, logs: CloudWatchLogs, stream: LogStream, limit: StartLimit
    ) -> None:
        self._logs = logs
        self._stream = stream
        self._limit = limit
        self._deadline = setup.deadline
        self._reports = setup.reports
        self._create_stream = _read_bool(setup.flags, "awslogs-create-stream", default=True)
        self._flush_pending = _read_bool(
            setup.flags, "awslogs-flush-pending-multiline", default=True
        )
        self._max_cost = parse_buffer_size(setup.flags) // 2
        """What is sent without waiting for more, as the container may soon have to wait."""
        self._joiner = _make_joiner(setup.flags, min(self._max_cost, MAX_TEXT_BYTES))
        self._batch_bytes = MAX_BATCH_BYTES
        self._queue: list[Events] = []
        self._size = self._count = self._cost = 0

    def open(self) -> None:
        self._limit.begin(START_S)
        retries = 0
        while self._create_stream:
            try:
                self._stream.create(self._logs)
                break
            except (Fault, OSError) as error:
                if retries == _count_retries(error) or not self._limit.left_s(START_S):
                    raise OSError(
                        f"create stream has been retried {retries} times: "
                        f"failed to create Cloudwatch log stream: {error}"
                    ) from error
            time.sleep(self._limit.left_s(FIRST_PAUSE_S * 2**retries))
            retries += 1
        self._limit.lift()

    def add(self, lines: Lines) -> bool:
        self._cost += lines.cost
        if self._joiner is not None:
            self._add_blocks(self._joiner.take(lines))
        elif text := render_lines(lines.text):
            self._add(Events(lines.time_ns // 10**6, text))
        return self._cost >= self._max_cost or self._is_full()

    def flush(self) -> None:
        self._end_blocks()
        gone = 0
        while self._queue:
            batch = take_batch(self._queue, self._batch_bytes)
            try:
                self._send(batch)
            except TryAgain as error:
                error.sent = gone
                raise
            gone += _count(batch)
            del self._queue[: len(batch)]
        self._size = self._count = 0
        self._cost = self.kept_cost

    def close(self) -> None:
        self._logs.close()

    def _add(self, events: Events) -> None:
        self._queue.append(events)
        self._size += events.size
        self._count += events.count

    def _is_full(self) -> bool:
        """Whether as much again as came last would be more than one request may hold."""
        if not self._queue:
            return False
        last = self._queue[-1]
        return (
            self._size + last.size > MAX_BATCH_BYTES or self._count + last.count > MAX_BATCH_EVENTS
        )

    def _add_blocks(self, blocks: "list[tuple[int, bytes]]") -> None:
        """Queue events of several lines; those of one moment together."""
        texts: dict[int, list[bytes]] = {}
        for time_ns, text in blocks:
            texts.setdefault(time_ns // 10**6, []).append(render_block(text))
        for time_ms, rendered in texts.items():
            self._add(Events(time_ms, b"\n".join(rendered)))

    def _end_blocks(self) -> None:
        """Queue events that wait for another line, when it is time."""
        if self._joiner is None:
            return
        if not self._deadline.has_begun():
            self._add_blocks(self._joiner.end_old())
        else:
            blocks = self._joiner.end_all()
            self._add_blocks(blocks if self._flush_pending else [])
        self.kept_lines, self.kept_cost = self._joiner.count_lines(), self._joiner.count_bytes()

    def _send(self, batch: list[Events]) -> None:
        """Send events, unless they will never be taken.

        Raises:
            TryAgain: they may be taken later.
        """
        count = _count(batch)
        try:
            rejected = self._stream.put(self._logs, batch)
        except OSError as error:
            if isinstance(error, TimeoutError):
                self._shrink(batch)
            raise TryAgain(str(error)) from error
        except Fault as fault:
            if self._can_help(fault, batch):
                raise TryAgain(str(fault)) from fault
            self._lose(count, str(fault))
            return
        self._batch_bytes = min(self._batch_bytes + MIN_BATCH_BYTES, MAX_BATCH_BYTES)
        old, new = count_rejected(rejected, count)
        if old or new:
            self._lose(old + new, f"{old} too old, {new} too new")

    def _can_help(self, fault: Fault, batch: list[Events]) -> bool:
        """Do what may help against a fault; return whether to try again."""
        if fault.status == TOO_LARGE:
            return self._shrink(batch)
        if fault.code == NOT_FOUND and self._create_stream:  # somebody has deleted it
            try:
                self._stream.create(self._logs)
            except (Fault, OSError) as error:
                raise TryAgain(str(error)) from error
        return fault.code not in REFUSED

    def _shrink(self, batch: list[Events]) -> bool:
        """Send less at once from now on; return whether there is less than this."""
        size = sum(events.size for events in batch)
        self._batch_bytes = max(size // 4, MIN_BATCH_BYTES)
        return self._batch_bytes < size and _count(batch) > 1

    def _lose(self, count: int, why: str) -> None:
        self.refused += count
        self._reports.loss(f"{count} events rejected: {why}")


def make(setup: Setup) -> AwsLogs:
    """Read the flags.

    Raises:
        ValueError: one is missing, or wrong.
        OSError: the certificates that the system trusts can't be read.
    """
    flags = setup.flags
    for name in REQUIRED:
        if name not in flags:
            raise ValueError(f"unable to get awslogs driver arguments: {name} is required")
    group, region, stream = (flags[name] for name in REQUIRED)
    _check_format(flags)
    limit = StartLimit(setup.deadline)
    connector = Connector(flags, limit)
    credentials: Credentials
    if "awslogs-credentials-endpoint" in flags:
        place = flags["awslogs-credentials-endpoint"]
        credentials = EndpointCredentials(place, flags.get("container-id", ""), connector, limit)
    else:
        credentials = FileCredentials()
    url = flags.get("awslogs-endpoint", "").rstrip("/") or _render_url(region)
    client = WebClient(url, connector, limit)
    logs = CloudWatchLogs(url, client, region, credentials)
    if "awslogs-format" in flags:
        logs.announce_format(flags["awslogs-format"])
    create_group = _read_bool(flags, "awslogs-create-group", default=False)
    log_stream = LogStream(group, stream, create_group=create_group)
    return AwsLogs(setup, logs, log_stream, limit)


def _count(batch: list[Events]) -> int:
    return sum(events.count for events in batch)


def _check_format(flags: dict[str, str]) -> None:
    text = flags.get("awslogs-format", FORMAT)
    if text != FORMAT:
        raise ValueError(f"unsupported log format '{text}'")
    if "awslogs-format" in flags and any(name in flags for name in MULTILINE):
        raise ValueError(
            f"you cannot configure log opt '{MULTILINE[0]}' or '{MULTILINE[1]}' "
            f"when log opt 'awslogs-format' is set to '{FORMAT}'"
        )


def _make_joiner(flags: dict[str, str], max_bytes: int) -> "Joiner | None":
    if not any(name in flags for name in MULTILINE):
        return None
    from destinations.multiline import Joiner, NoRe2Error, compile_datetime, compile_pattern

    sys.path.append(flags.get("awslogs-packages", ""))
    datetime, pattern = (flags.get(name, "") for name in MULTILINE)
    try:
        begins = compile_datetime(datetime) if datetime else compile_pattern(pattern)
    except NoRe2Error as error:
        _begin_anew(flags.get("awslogs-python", ""))
        raise ValueError(f"{MULTILINE[0]} and {MULTILINE[1]}: {error}") from None
    except ValueError as error:
        raise ValueError(
            f'awslogs could not parse multiline pattern key "{datetime or pattern}": {error}'
        ) from None
    return Joiner(begins, max_bytes)


def _begin_anew(python: str) -> None:
    """Become the interpreter that the packages are for, if this one is another; only once."""
    if python and BEGUN_ANEW not in posix.environ:
        posix.execve(python, [python, "-ISE", *sys.argv], {BEGUN_ANEW: b"1"})


def _read_bool(flags: dict[str, str], name: str, *, default: bool) -> bool:
    try:
        return parse_bool(flags, name, default)
    except ValueError:
        raise ValueError(
            f"must specify valid value for log opt '{name}': "
            f'strconv.ParseBool: parsing "{flags[name]}": invalid syntax'
        ) from None


def _render_url(region: str) -> str:
    """Source: AWS general reference, "Amazon CloudWatch Logs endpoints and quotas"."""
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://logs.{region}.{domain}"


def _count_retries(error: Fault | OSError) -> int:
    """Return how often a start is tried again."""
    if isinstance(error, OSError):
        return RETRIES_OF_CONNECTION
    busy = error.code in BUSY or error.status == TOO_MANY or error.status >= SERVER_ERROR
    return RETRIES_OF_BUSY if busy else RETRIES_OF_REFUSAL
