"""What a program tells systemd: that it is ready, what it does, that it is alive; and its log.

Without systemd all of it is silent, and the log goes to stderr as ever.

Source: sd_notify(3); systemd.io, "Native Journal Protocol".
"""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

log = logging.getLogger(__name__)

BEAT_S: Final = 10.0
"""How often the status line is renewed when there is no watchdog."""

RETRY_S: Final = 1.0
"""When the next attempt is made after a check has failed: the watchdog waits for none."""

START_EXTENSION_S: Final = 60.0
"""How much longer the start may take, counted from each beat."""

RELOAD_WATCHDOG_S: Final = 120.0
"""How long a program that loads itself again may be silent: it can't speak before that is done."""

SEND_TIMEOUT_S: Final = 0.2
"""How long a send may hold up the program; it takes some 10 µs unless systemd is in trouble."""

JOURNAL: Final = Path("/run/systemd/journal/socket")
MAX_VALUE_BYTES: Final = 48 * 1024
"""Longer values are cut. As long as a line of stdout. Source: journald.conf(5), `LineMax=`."""

_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
"""Source: syslog(3); what is below is debug, 7."""


@dataclass(slots=True, kw_only=True)
class Notifier:
    """Talks to the service manager that has started this process, if one has."""

    address: str | None = None
    """Socket to talk to; None: there is nobody."""
    watchdog_s: float | None = None
    """Silence for so long ends the program; None: no watchdog."""
    is_ready: bool = False
    _status: str = field(default="", init=False)

    @classmethod
    def from_environment(cls) -> Self:
        """Read how this process was started."""
        watchdog_us = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(
            address=os.environ.get("NOTIFY_SOCKET") or None,
            watchdog_s=int(watchdog_us) / 1e6 if ours and watchdog_us.isdecimal() else None,
        )

    def ready(self) -> None:
        """Say that the start, or the reload, is over."""
        self.is_ready = True
        self._send("READY=1", *self._set_watchdog(self.watchdog_s))

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def reloading(self) -> None:
        """Say that settings are read again; `ready` says that it is done."""
        self.is_ready = False
        monotonic_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        patience = self._set_watchdog(RELOAD_WATCHDOG_S)
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_us}", *patience)

    def status(self, text: str) -> None:
        """Say in one line what the program does; the same again isn't sent."""
        text = "; ".join(text.splitlines())
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    async def keep_alive(self, check: Callable[[], Awaitable[str | None]]) -> None:
        """Prove that the program works, and extend the time to start, until cancelled.

        While it isn't ready the running loop is proof enough: what it waits for may take as long
        as it likes. From then on `check` has to return None; the text it returns otherwise is
        what is wrong.
        """
        beat_s = self.watchdog_s / 3 if self.watchdog_s else BEAT_S
        failing = False
        while True:
            fault = await check() if self.is_ready else None
            if fault is None:
                failing = False
                self._beat()
            elif not failing:
                failing = True
                log.warning("%s%s", fault, self._threat())
            await asyncio.sleep(min(beat_s, RETRY_S) if failing else beat_s)

    def _beat(self) -> None:
        messages = []
        if self.watchdog_s is not None:
            messages.append("WATCHDOG=1")
        if not self.is_ready:
            messages.append(f"EXTEND_TIMEOUT_USEC={int(START_EXTENSION_S * 1e6)}")
        if messages:
            self._send(*messages)

    def _set_watchdog(self, silence_s: float | None) -> list[str]:
        if self.watchdog_s is None or silence_s is None:
            return []
        return [f"WATCHDOG_USEC={int(silence_s * 1e6)}", "WATCHDOG=1"]

    def _threat(self) -> str:
        if self.watchdog_s is None:
            return ""
        return f"; systemd restarts this program if that goes on for {self.watchdog_s:g} s"

    def _send(self, *assignments: str) -> None:
        if self.address is None:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                _send_datagram(sender, "\n".join(assignments).encode(), address)
        except OSError as error:
            log.warning("systemd can't be told %s: %s", assignments[0], error)


def _send_datagram(sender: socket.socket, data: bytes, address: str) -> None:
    """Send at once, or as soon as the other side has read something.

    Raises:
        TimeoutError: it doesn't read.
        OSError: it isn't there.
    """
    sender.setblocking(False)  # noqa: FBT003 - so named
    try:
        sender.sendto(data, address)
    except BlockingIOError:
        sender.settimeout(SEND_TIMEOUT_S)
        sender.sendto(data, address)


def stderr_is_journal() -> bool:
    """Whether what is written to stderr gets into the journal. Source: systemd.exec(5)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


class JournalHandler(logging.Handler):
    """Writes to the journal, with fields to search by; to stderr what the journal doesn't take."""

    def __init__(
        self,
        identifier: str,
        fields: Callable[[logging.LogRecord], Mapping[str, str]] = lambda _: {},
        address: Path = JOURNAL,
    ) -> None:
        """`fields` are added to each line; those with an empty value are left out."""
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))  # time and level are fields
        self._identifier = identifier
        self._fields = fields
        self._address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            self._send(self._render(record, message), message)
        except (OSError, ValueError, TypeError, LookupError):  # a log line must not end its writer
            self.handleError(record)

    def _send(self, entry: bytes, message: str) -> None:
        try:
            _send_datagram(self._socket, entry, self._address)
        except TimeoutError:  # a stuck journal would hold up stderr as well
            return
        except OSError:
            sys.stderr.write(f"{message}\n")

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _render(self, record: logging.LogRecord, message: str) -> bytes:
        fields = {
            "MESSAGE": message,
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": self._identifier,
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
            **self._fields(record),
        }
        return b"".join(render_field(name, value) for name, value in fields.items() if value)


def make_handler(
    identifier: str,
    plain: logging.Formatter,
    fields: Callable[[logging.LogRecord], Mapping[str, str]] = lambda _: {},
) -> logging.Handler:
    """Return the handler for all of a program's log: the journal, or stderr in `plain` form."""
    if stderr_is_journal():
        return JournalHandler(identifier, fields)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(plain)
    return handler


def complain(program: str, text: str) -> None:
    """Say why a program can't start: one line for each of the text."""
    level = f"<{priority(logging.ERROR)}>" if stderr_is_journal() else ""
    for line in text.splitlines():
        sys.stderr.write(f"{level}{program}: {line}\n")


def priority(level: int) -> int:
    """Return the priority that syslog has for a level."""
    return next((value for least, value in _PRIORITIES if level >= least), 7)


def render_field(name: str, value: str) -> bytes:
    """Return one field of an entry; a value of several lines goes with its length."""
    data = value.encode(errors="replace")[:MAX_VALUE_BYTES]
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
