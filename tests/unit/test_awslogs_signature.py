"""Signatures against those of botocore."""

import pytest
from botocore.credentials import Credentials

from destinations.sigv4 import Keys, Scope, render_signature
from tests.fixtures.cloudwatch import sign_as_botocore

BASE = {
    "Content-Type": "application/x-amz-json-1.1",
    "X-Amz-Date": "20260105T100007Z",
    "X-Amz-Target": "Logs_20140328.PutLogEvents",
}


@pytest.mark.parametrize(
    ("keys", "headers", "body"),
    [
        pytest.param(("AKID", "secret", ""), {}, b"{}", id="keys-that-last"),
        pytest.param(
            ("ASIA", "se/cret+" * 10, "tok=en/" * 100),
            {"X-Amz-Security-Token": "tok=en/" * 100},
            b"{}",
            id="keys-of-a-role",
        ),
        pytest.param(("AKID", "s" * 80, ""), {}, b"{}", id="secret-longer-than-a-block"),
        pytest.param(("AKID", "secret", ""), {"x-amzn-logs-format": "json/emf"}, b"", id="format"),
        pytest.param(("AKID", "secret", ""), {}, bytes(range(256)) * 4096, id="megabyte"),
    ],
)
def test_signature_is_that_of_botocore(
    keys: tuple[str, str, str], headers: dict[str, str], body: bytes
) -> None:
    signed = BASE | headers | {"Host": "logs.eu-west-1.amazonaws.com"}

    signature = render_signature(Scope("eu-west-1", "logs"), Keys(*keys), "/", signed, body)

    botocore_keys = Credentials(keys[0], keys[1], keys[2] or None)
    assert signature == sign_as_botocore(
        "https://logs.eu-west-1.amazonaws.com/", BASE | headers, body, botocore_keys, "eu-west-1"
    )
