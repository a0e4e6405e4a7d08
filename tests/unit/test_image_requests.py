from datetime import UTC, datetime

import pytest

from fargate_agent.image.registry.requests import parse_retry_after

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7),
        (" 120 ", 120),
        ("0", 0),
        ("Fri, 02 Jan 2026 03:05:00 GMT", 55),
        ("Friday, 02-Jan-26 03:05:00 GMT", 55),
        ("Fri Jan  2 03:05:00 2026", 55),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0),
        ("", 0),
        ("-1", 0),
        ("1.5", 0),
        ("soon", 0),
        ("9" * 400, 0),
        ("Fri, 99 Jan 2026 03:05:00 GMT", 0),
        ("٣", 0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, expected: float) -> None:
    assert parse_retry_after(value, NOW) == expected
