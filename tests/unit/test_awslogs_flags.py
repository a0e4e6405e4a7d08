"""What the driver awslogs wants to be told."""

import pytest

from destinations.to_awslogs import AwsLogs, make
from reading.deadline import Deadline
from sending.destination import Setup
from sending.reports import Reports

REQUIRED = {
    "awslogs-group": "g",
    "awslogs-region": "us-east-1",
    "awslogs-stream": "s",
    "awslogs-endpoint": "http://127.0.0.1:1",
}


def make_with(flags: dict[str, str]) -> AwsLogs:
    return make(Setup(flags, Deadline(), Reports("awslogs", "c-1", None), None))


@pytest.mark.parametrize("name", ["awslogs-group", "awslogs-region", "awslogs-stream"])
def test_flag_that_is_required_is_missing(name: str) -> None:
    flags = {key: value for key, value in REQUIRED.items() if key != name}

    with pytest.raises(ValueError, match=f"unable to get awslogs driver arguments: {name} is req"):
        make_with(flags)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        pytest.param(
            {"awslogs-create-group": "maybe"},
            "must specify valid value for log opt 'awslogs-create-group': "
            'strconv.ParseBool: parsing "maybe": invalid syntax',
            id="create-group",
        ),
        pytest.param(
            {"awslogs-create-stream": "2"},
            "must specify valid value for log opt 'awslogs-create-stream': "
            'strconv.ParseBool: parsing "2": invalid syntax',
            id="create-stream",
        ),
        pytest.param({"awslogs-format": "json"}, "unsupported log format 'json'", id="format"),
        *(
            pytest.param(
                {"awslogs-format": "json/emf", name: "x"},
                "you cannot configure log opt 'awslogs-datetime-format' or "
                "'awslogs-multiline-pattern' when log opt 'awslogs-format' is set to 'json/emf'",
                id=f"format-and-{name}",
            )
            for name in ("awslogs-datetime-format", "awslogs-multiline-pattern")
        ),
        pytest.param(
            {"awslogs-multiline-pattern": "(x"},
            'awslogs could not parse multiline pattern key "(x": missing ): (x',
            id="pattern",
        ),
        pytest.param({"awslogs-endpoint": "ftp://x"}, "invalid URL 'ftp://x'", id="endpoint"),
    ],
)
def test_flag_is_wrong(flags: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is compared whole
        make_with(REQUIRED | flags)

    assert str(raised.value) == text


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param({}, id="required-ones"),
        pytest.param({"awslogs-format": "json/emf"}, id="format"),
        pytest.param({"awslogs-create-group": "TRUE", "awslogs-create-stream": "f"}, id="booleans"),
        pytest.param(
            {"awslogs-datetime-format": "%Y", "awslogs-multiline-pattern": "("},
            id="datetime-format-wins",
        ),
        pytest.param({"awslogs-endpoint": "http://127.0.0.1:4566/"}, id="slash-after-endpoint"),
        pytest.param({"awslogs-credentials-endpoint": ":51679/creds"}, id="credentials-port"),
        pytest.param({"awslogs-credentials-endpoint": "/v2/credentials/x"}, id="credentials-path"),
    ],
)
def test_flags_are_good(flags: dict[str, str]) -> None:
    assert make_with(REQUIRED | flags).max_line_bytes == 262_118
