"""What a driver is, and what it is made with.

All that is loaded before a container starts knows this, and nothing of how lines get here.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from local.local_copy import LocalCopy
    from reading.deadline import Deadline
    from reading.lines import Lines
    from sending.reports import Reports

NO_LIMIT = 2**63
SEVERITIES = {"stdout": 6, "stderr": 3}
"""Of a stream, where destinations want to know: informational, and error. Source: syslog(3)."""


class Setup:
    """What a destination is made with."""

    def __init__(
        self,
        flags: dict[str, str],
        deadline: "Deadline",
        reports: "Reports",
        copy: "LocalCopy | None",
    ) -> None:
        self.flags = flags
        """By name, without the dashes; those without a value are left out."""
        self.deadline = deadline
        """No operation may take longer than it leaves."""
        self.reports = reports
        self.copy = copy


class TryAgain(Exception):  # noqa: N818 - it is no error
    """The destination can't take it now; the text says why."""

    def __init__(self, text: str, sent: int = 0, *, expected: bool = False) -> None:
        super().__init__(text)
        self.expected = expected
        """Whether that is nothing to speak of, if it doesn't last."""
        self.sent = sent
        """So many of the lines that were added got through in this attempt."""


class Destination:
    """What a driver is: lines are added, and sent at the latest when `flush` is called."""

    max_line_bytes = 16 * 1024
    """A longer line comes in pieces. Source: moby, daemon/logger/copier.go."""
    max_waiting_lines = NO_LIMIT
    """How many lines may wait for it, whatever the budget of bytes is."""
    linger_s = 0.0
    """How long lines may wait for others; 0: what is there is sent at once."""
    refused = 0
    """Lines that it would never have taken, and that are gone."""
    kept_lines = 0
    """Lines that a flush has kept back, as others may belong to them; none when the end has begun.
    They are flushed again after `linger_s`."""
    kept_cost = 0
    """Bytes that these take."""

    def open(self) -> None:
        """Get ready; the container is started afterwards.

        Raises:
            OSError, ValueError: it can't be done, and the task fails with this text.
        """

    def add(self, lines: "Lines") -> bool:
        """Take lines over; return whether it is time to flush."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send all that was added.

        Raises:
            TryAgain: what was not sent yet stays, and the next flush sends it.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the destination; nothing is added any more."""
