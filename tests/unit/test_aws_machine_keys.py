from datetime import UTC, datetime
from pathlib import Path

import pytest

from fargate_agent.aws.errors import RoleError
from fargate_agent.aws.machine_keys import read_machine_keys
from tests.fixtures.aws import ACCESS_KEY, SECRET_KEY, write_keys

SOON = datetime(2026, 1, 5, tzinfo=UTC)


def test_machine_keys_are_read_from_the_default_profile(tmp_path: Path) -> None:
    file = write_keys(
        tmp_path,
        "[other]\naws_access_key_id = no\n[default]\naws_access_key_id=AK\n"
        "aws_secret_access_key = a%b/c=\naws_session_token = token\n",
    )

    keys = read_machine_keys(file, SOON)

    assert (keys.access_key, keys.secret_key, keys.token) == ("AK", "a%b/c=", "token")
    assert keys.expires_at == SOON


@pytest.mark.parametrize(
    ("text", "mode", "fault"),
    [
        pytest.param(None, 0o640, "can be read by others", id="mode"),
        pytest.param(f"{SECRET_KEY}\n", 0o600, "is not a credentials file", id="no profile"),
        pytest.param("[other]\n", 0o600, "has no aws_access_key_id", id="other profile"),
        pytest.param(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\n",
            0o600,
            "has no aws_secret_access_key",
            id="half",
        ),
    ],
)
def test_wrong_file_of_machine_keys_is_refused_without_its_secret(
    tmp_path: Path, text: str | None, mode: int, fault: str
) -> None:
    file = write_keys(tmp_path, text, mode)

    with pytest.raises(RoleError, match=f"aws_credentials_file {fault}") as caught:
        read_machine_keys(file, SOON)

    assert SECRET_KEY not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_machine_without_keys_is_told_what_to_set() -> None:
    with pytest.raises(RoleError, match="set aws_credentials_file, or assume_roles = false"):
        read_machine_keys(None, SOON)
