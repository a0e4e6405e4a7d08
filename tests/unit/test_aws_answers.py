"""What services answer is read with distrust, and shows no key."""

from datetime import UTC, datetime

import pytest

from fargate_agent.aws.answers import read_json, read_members, refusal
from fargate_agent.aws.calls import AwsSite
from fargate_agent.role_keys import RoleKeys

KEYS = RoleKeys(
    access_key="ASIA", secret_key="the-secret", token="the-token", expires_at=datetime.now(UTC)
)


def test_refusal_of_a_signature_shows_nothing_of_the_request() -> None:
    said = (
        "The request signature we calculated does not match the signature you provided.\n\n"
        "The Canonical String for this request should have been\n'POST\n/\n\n"
        "host:ssm.us-east-1.amazonaws.com\nx-amz-security-token:the-token\n'"
    )

    error = refusal(403, "InvalidSignatureException", said, KEYS)

    assert str(error) == (
        "InvalidSignatureException: The request signature we calculated does not match the "
        "signature you provided."
    )
    assert not error.may_pass


def test_keys_in_the_first_line_of_a_refusal_are_hidden() -> None:
    error = refusal(400, "Odd", "token the-token and key the-secret are wrong", KEYS)

    assert str(error) == "Odd: token … and key … are wrong"


def test_refusal_is_as_short_as_a_reason() -> None:
    assert len(str(refusal(500, "C" * 5000, "m" * 4_000_000, KEYS))) < 1300


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 200_000, b"9" * 5000, b"\xff"])
def test_what_is_no_object_is_none(body: bytes) -> None:
    assert read_json(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<a>",
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b'<?xml version="1.0" encoding="shift_jis"?><a/>',
    ],
)
def test_what_is_no_xml_has_no_members(body: bytes) -> None:
    assert read_members(body) == {}


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("us-gov-west-1", "amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn"),
        ("eusc-de-east-1", "amazonaws.eu"),
    ],
)
def test_services_are_where_their_partition_is(region: str, domain: str) -> None:
    assert AwsSite(region="us-east-1").url("ssm", region) == f"https://ssm.{region}.{domain}/"
