"""What a secret of `repositoryCredentials` may hold."""

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.secrets.logins import read_login


def test_user_and_password_are_read() -> None:
    text = '{"username": "ann", "password": "pa:ss", "more": 1}'

    assert read_login(text, "login") == ("ann", "pa:ss")


@pytest.mark.parametrize(
    "text",
    [
        "s3cret",
        "[" * 60_000,
        '{"username": "ann", "password": "s3cret\\ud800"}',
        '["ann", "s3cret"]',
        '{"username": "ann"}',
        '{"username": "", "password": "s3cret"}',
        '{"username": "ann", "password": 5}',
        '{"user": "ann", "password": "s3cret"}',
    ],
)
def test_what_is_no_login_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ResourceInitializationError) as caught:
        read_login(text, "the-name")

    assert "the secret the-name is not" in caught.value.reason
    assert "s3cret" not in caught.value.reason
    assert caught.value.__cause__ is None
