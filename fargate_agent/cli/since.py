"""The moment that `--since` means: a time, or how long ago it was."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from fargate_agent.cli.failure import CliError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_since(text: str | None, now: datetime) -> str | None:
    """A point in time as RFC 3339, from RFC 3339 or an age such as `90s`, `10m`, `2h`, `1d`.

    Raises:
        CliError: it is neither.

    Example:
        >>> parse_since("10m", datetime(2026, 1, 1, 12, 0, tzinfo=UTC))
        '2026-01-01T11:50:00+00:00'
    """
    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,9})([smhd])", text):
        age = timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
        return max(now - age, datetime.fromtimestamp(0, UTC)).isoformat()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(
            f"--since {text}: neither an age such as 10m nor a time such as 2026-01-31T12:00:00Z"
        ) from None
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()
