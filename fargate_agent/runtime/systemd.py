"""systemd's manager, by D-Bus: the few calls that the slices of tasks need.

A connection is made for one purpose and closed. So there is nothing to keep alive when the bus or
systemd starts again, and each purpose has one deadline. All functions block.

Source: org.freedesktop.systemd1(5); D-Bus specification.
"""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from jeepney import (
    AuthenticationError,
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    Parser,
    new_method_call,
)
from jeepney.auth import BEGIN, Authenticator

SYSTEM_BUS: Final = Path("/run/dbus/system_bus_socket")
"""Source: D-Bus specification, "System message bus"."""

RUN: Final = Path("/run")
"""Where systemd keeps units that are made by calls. Source: systemd.unit(5), `transient`."""

_UNIT_BYTES: Final = 65536
"""More than the files of one unit take: a directory of some drop-ins, each a page."""

Properties = Sequence[tuple[str, tuple[str, int | bool | str | Sequence[int]]]]
"""Name, and value with its D-Bus type."""

_BUS: Final = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_MANAGER: Final = DBusAddress(
    "/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
)
_JOB_REMOVED: Final = "JobRemoved"
_JOB_REMOVED_RULE: Final = (
    f"type='signal',sender='{_MANAGER.bus_name}',interface='{_MANAGER.interface}',"
    f"member='{_JOB_REMOVED}'"
)

_START_TYPES: Final = "ssa(sv)a(sa(sv))"
"""Name, mode, properties, other units."""

_NO_SUCH_UNIT: Final = "org.freedesktop.systemd1.NoSuchUnit"
_UNIT_EXISTS: Final = "org.freedesktop.systemd1.UnitExists"

_READ_BYTES: Final = 65536


class SystemdError(OSError):
    """systemd, or the bus on the way to it, didn't do what it was asked for."""


class _RefusalError(SystemdError):
    """An error that the other side answered with."""

    def __init__(self, call: str, name: str, text: str) -> None:
        super().__init__(f"systemd: {_find_cause()}{call}: {text}")
        self.name = name


def _find_cause() -> str:
    """Say what systemd doesn't: a unit that it can't write is "not found" to it."""
    found = os.statvfs(RUN)
    is_full = found.f_bavail * found.f_frsize < _UNIT_BYTES
    return f"no space left in {RUN}: " if is_full else ""


class Manager:
    """Calls of systemd's manager through one connection, which is good for one purpose."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s
        self._end = time.monotonic() + deadline_s
        self._parser = Parser()
        self._serial = 0
        self._results: dict[str, str] = {}
        """How jobs ended, by their paths."""

    def open(self) -> None:
        """Say who we are, and ask to be told of jobs that end.

        Raises:
            SystemdError: the bus refused, or there is no systemd behind it.
            TimeoutError: it didn't answer in time.
        """
        authenticator = Authenticator()
        try:
            for request in authenticator:
                self._send(request)
                authenticator.feed(self._read())
        except AuthenticationError as error:
            raise SystemdError(f"the system bus refused us: {error}") from error
        self._send(BEGIN)
        self._call(_BUS, "Hello")
        self._call(_BUS, "AddMatch", "s", _JOB_REMOVED_RULE)
        self._call(_MANAGER, "Subscribe")

    def start_slice(self, name: str, properties: Properties) -> None:
        """Return when a slice is active and has these properties, whether it was there or not.

        Raises:
            SystemdError: systemd refused.
            TimeoutError: it took too long.
        """
        try:
            job = self._start_transient(name, properties)
        except _RefusalError as error:
            if error.name != _UNIT_EXISTS:
                raise
            self.set_properties(name, properties)
            job = str(self._call(_MANAGER, "StartUnit", "ss", name, "replace")[0])
        self._wait(f"start of {name}", job)

    def start_scope(self, name: str, properties: Properties) -> None:
        """Return when a scope is active that holds the processes of its property `PIDs` alone.

        One of that name that is there ends, with all that is in it: it was a predecessor's.

        Raises:
            SystemdError: systemd refused.
            TimeoutError: it took too long.
        """
        try:
            job = self._start_transient(name, properties)
        except _RefusalError as error:
            if error.name != _UNIT_EXISTS:
                raise
            self.stop(name)
            self.forget_failure(name)
            job = self._start_transient(name, properties)
        self._wait(f"start of {name}", job)

    def set_properties(self, name: str, properties: Properties) -> None:
        """Change properties of a unit until the next boot.

        systemd writes them to the control group right after it has answered.

        Raises:
            SystemdError: systemd refused, e.g. it has no such unit.
            TimeoutError: it took too long.
        """
        self._call(_MANAGER, "SetUnitProperties", "sba(sv)", name, True, properties)  # noqa: FBT003 - until the next boot

    def find_units(self, patterns: Sequence[str]) -> dict[str, str]:
        """Return the states (`active`, `failed`, …) of the units that systemd has, by name.

        Raises:
            SystemdError: systemd refused.
            TimeoutError: it took too long.
        """
        found = self._call(_MANAGER, "ListUnitsByPatterns", "asas", [], list(patterns))
        return {unit[0]: unit[3] for unit in found[0]}

    def stop(self, name: str) -> None:
        """Return when a unit, and all that needs it, has ended; one that isn't there has.

        Raises:
            SystemdError: systemd refused.
            TimeoutError: it took too long.
        """
        try:
            job = self._call(_MANAGER, "StopUnit", "ss", name, "replace")
        except _RefusalError as error:
            if error.name != _NO_SUCH_UNIT:
                raise
        else:
            self._wait(f"stop of {name}", job[0])

    def forget_failure(self, name: str) -> None:
        """Let go of a unit that is kept only because it failed.

        Raises:
            SystemdError: systemd refused.
            TimeoutError: it took too long.
        """
        try:
            self._call(_MANAGER, "ResetFailedUnit", "s", name)
        except _RefusalError as error:
            if error.name != _NO_SUCH_UNIT:
                raise

    def _start_transient(self, name: str, properties: Properties) -> str:
        """Return the job that starts the unit."""
        answer = self._call(
            _MANAGER, "StartTransientUnit", _START_TYPES, name, "replace", properties, []
        )
        return str(answer[0])

    def _wait(self, what: str, job: str) -> None:
        while job not in self._results:
            self._note(self._receive())
        result = self._results.pop(job)
        if result not in {"done", "skipped"}:
            raise SystemdError(f"systemd: {_find_cause()}{what}: {result}")

    def _call(
        self, address: DBusAddress, method: str, signature: str = "", *arguments: object
    ) -> tuple[Any, ...]:
        self._serial += 1
        request = new_method_call(address, method, signature, arguments)
        self._send(request.serialise(serial=self._serial))
        while True:
            answer = self._receive()
            if answer.header.fields.get(HeaderFields.reply_serial) == self._serial:
                break
            self._note(answer)
        body: tuple[Any, ...] = answer.body
        if answer.header.message_type is MessageType.error:
            name = str(answer.header.fields.get(HeaderFields.error_name))
            raise _RefusalError(method, name, str(body[0]) if body else name)
        return body

    def _note(self, message: Message) -> None:
        """Remember how a job ended: it may be told before we know that the job is ours."""
        if message.header.fields.get(HeaderFields.member) == _JOB_REMOVED:
            _, path, _, result = message.body
            self._results[path] = result

    def _receive(self) -> Message:
        while (message := self._parser.get_next_message()) is None:
            self._parser.add_data(self._read())
        return message

    def _read(self) -> bytes:
        self._connection.settimeout(self._remaining_s())
        data = self._connection.recv(_READ_BYTES)
        if not data:
            raise SystemdError("the system bus closed the connection")
        return data

    def _send(self, data: bytes) -> None:
        self._connection.settimeout(self._remaining_s())
        self._connection.sendall(data)

    def _remaining_s(self) -> float:
        remaining_s = self._end - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        return remaining_s


@contextmanager
def open_manager(deadline_s: float, bus: Path = SYSTEM_BUS) -> Iterator[Manager]:
    """Connect to systemd; all that the body asks of it has to be done in `deadline_s`.

    Raises:
        SystemdError: there is no bus, or it refused.
        TimeoutError: it took too long.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(deadline_s)
            connection.connect(str(bus))
            manager = Manager(connection, deadline_s)
            manager.open()
            yield manager
        except TimeoutError:
            raise TimeoutError(f"systemd took longer than {deadline_s:g} s") from None
        except (ConnectionError, FileNotFoundError) as error:
            raise SystemdError(f"system bus {bus}: {error.strerror}") from error
