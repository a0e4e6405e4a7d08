"""Credentials of roles: assumed at moto's STS, or what stands for the role on this machine."""

import logging
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fargate_agent.aws.errors import RoleError
from fargate_agent.controlplane.roles.minting import MADE_UP, Mint, MintTimes
from fargate_agent.controlplane.settings import ControlPlaneSettings
from tests.fixtures.aws import ACCESS_KEY, ROLE, SECRET_KEY, Front, write_keys

TASK = "0123456789abcdef0123456789abcdef"
REFUSAL = (
    "<ErrorResponse xmlns='urn:sts'><Error><Type>Sender</Type>"
    "<Code>AccessDenied</Code><Message>User is not authorized</Message></Error></ErrorResponse>"
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def make_mint(
    http: aiohttp.ClientSession,
    environ: Mapping[str, str] | None = None,
    times: MintTimes | None = None,
    **settings: Any,
) -> Mint:
    return Mint(http, ControlPlaneSettings.model_validate(settings), times, environ or {})


async def test_role_is_assumed_with_the_machine_s_keys_in_the_name_of_the_task(
    http: aiohttp.ClientSession, front: Front, tmp_path: Path
) -> None:
    mint = make_mint(http, aws_endpoint_url=front.url, aws_credentials_file=write_keys(tmp_path))

    minted = await mint.mint(ROLE, TASK)

    (call,) = front.calls
    assert (call.name, call.key, call.token) == ("AssumeRole", ACCESS_KEY, None)
    assert (call.request["RoleArn"], call.request["RoleSessionName"]) == (ROLE, TASK)
    assert minted.keys.access_key.startswith("ASIA")
    assert minted.keys.token
    assert minted.made_from is None
    left = minted.keys.expires_at - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert minted.keys.expires_at - minted.refresh_at == timedelta(minutes=20)
    assert minted.keys.secret_key not in repr(minted)
    assert minted.keys.token not in repr(minted)


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        pytest.param(
            {
                "AWS_ACCESS_KEY_ID": "AKIAENV",
                "AWS_SECRET_ACCESS_KEY": "s",
                "AWS_SESSION_TOKEN": "t",
            },
            ("AKIAENV", "t"),
            id="environment",
        ),
        pytest.param({}, ("ASIA", None), id="none: what stands for AWS takes any"),
    ],
)
async def test_machine_without_a_file_signs_with_what_it_has(
    http: aiohttp.ClientSession, front: Front, environ: dict[str, str], key: tuple[str, str | None]
) -> None:
    await make_mint(http, environ, aws_endpoint_url=front.url).mint(ROLE, TASK)

    (call,) = front.calls
    assert call.key.startswith(key[0])
    assert key[1] is None or call.token == key[1]


async def test_machine_without_keys_is_told_what_to_set(http: aiohttp.ClientSession) -> None:
    with pytest.raises(RoleError, match="unable to assume .* set aws_credentials_file") as caught:
        await make_mint(http, aws="real").mint(ROLE, TASK)

    assert not caught.value.may_pass


async def test_refused_role_says_so_in_the_words_of_ecs(
    http: aiohttp.ClientSession, front: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    front.faults.append((403, REFUSAL))
    mint = make_mint(http, aws_endpoint_url=front.url, aws_credentials_file=write_keys(tmp_path))

    with caplog.at_level(logging.DEBUG), pytest.raises(RoleError) as caught:
        await mint.mint(ROLE, TASK)

    assert str(caught.value) == (
        f"ECS was unable to assume the role '{ROLE}' that was provided for this task. Please "
        "verify that the role being passed has the proper trust relationship and permissions and "
        "that your IAM user has permissions to pass this role. AccessDenied: User is not authorized"
    )
    assert not caught.value.may_pass
    assert SECRET_KEY not in caplog.text


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        pytest.param(200, "<a>no credentials</a>", "with what are no credentials", id="no members"),
        pytest.param(429, "<html>", "HTTP 429 with what is no error", id="gateway"),
        pytest.param(502, "<html>", "ServiceUnavailable: HTTP 502", id="proxy"),
        pytest.param(400, REFUSAL.replace("AccessDenied", "Throttling"), "Throttling", id="busy"),
    ],
)
async def test_answer_that_makes_no_sense_may_pass(
    http: aiohttp.ClientSession, front: Front, status: int, body: str, text: str
) -> None:
    front.faults.append((status, body))

    with pytest.raises(RoleError, match=text) as caught:
        await make_mint(http, aws_endpoint_url=front.url).mint(ROLE, TASK)

    assert caught.value.may_pass


async def test_text_of_a_refusal_is_short_and_does_not_quote_the_request(
    http: aiohttp.ClientSession, front: Front
) -> None:
    """Source: AWS IAM user guide, "Troubleshoot Signature Version 4 signing"."""
    said = f"It doesn't match. {'x' * 5000}\n\nThe Canonical String was 'x-amz-security-token:hush'"
    front.faults.append((403, REFUSAL.replace("User is not authorized", said)))

    with pytest.raises(RoleError, match="AccessDenied: It doesn't match") as caught:
        await make_mint(http, aws_endpoint_url=front.url).mint(ROLE, TASK)

    assert "hush" not in str(caught.value)
    assert len(str(caught.value)) < 1500


async def test_sts_that_is_not_there_or_does_not_answer_may_be_there_later(
    http: aiohttp.ClientSession, front: Front
) -> None:
    front.go.clear()

    with pytest.raises(RoleError, match="connection refused") as nobody:
        await make_mint(http, aws_endpoint_url="http://127.0.0.1:1").mint(ROLE, TASK)
    with pytest.raises(RoleError, match=r"STS has not answered within 0\.2 s") as silent:
        await make_mint(http, {}, MintTimes(timeout_s=0.2), aws_endpoint_url=front.url).mint(
            ROLE, TASK
        )

    assert (nobody.value.may_pass, silent.value.may_pass) == (True, True)


async def test_machine_s_own_keys_are_handed_out_where_roles_are_not_assumed(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    mint = make_mint(http, aws_credentials_file=write_keys(tmp_path), assume_roles=False)

    minted = await mint.mint(ROLE, TASK)

    assert (minted.keys.access_key, minted.keys.secret_key) == (ACCESS_KEY, SECRET_KEY)
    assert minted.made_from == "the machine's own keys"
    assert minted.refresh_at > datetime.now(UTC) + timedelta(minutes=30)


async def test_machine_without_aws_makes_keys_up(http: aiohttp.ClientSession) -> None:
    mint = make_mint(http)

    first, second = await mint.mint(ROLE, TASK), await mint.mint(ROLE, TASK)

    assert re.fullmatch(r"ASIA[A-Z2-7]{16}", first.keys.access_key)
    assert len(first.keys.secret_key) == 40
    assert first.keys.token
    assert first.keys.access_key != second.keys.access_key
    assert first.made_from == "keys made up on this machine, which AWS doesn't know"


PROFILES = "[dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = dev-secret\n"


@pytest.mark.parametrize("is_set", [True, False])
async def test_role_may_stand_for_a_profile_and_an_endpoint(
    http: aiohttp.ClientSession, tmp_path: Path, is_set: bool
) -> None:
    file = write_keys(tmp_path, PROFILES)
    role = {"profile": "dev", "endpoint_urls": {"s3": "http://127.0.0.1:9000"}}
    settings: dict[str, Any] = {"aws": "local", "local_roles": {"exec*": role}}
    if is_set:
        mint = make_mint(http, {}, aws_credentials_file=file, **settings)
    else:
        mint = make_mint(http, {"AWS_SHARED_CREDENTIALS_FILE": str(file)}, **settings)

    minted = await mint.mint(ROLE, TASK)

    assert (minted.keys.access_key, minted.keys.secret_key) == ("AKIADEV", "dev-secret")
    assert minted.made_from == "the keys of profile dev, for http://127.0.0.1:9000"


async def test_role_may_stand_for_keys(http: aiohttp.ClientSession) -> None:
    keys = {"access_key_id": "AKIAOWN", "secret_access_key": "own", "session_token": "token"}

    minted = await make_mint(http, local_roles={"execution": keys}).mint(ROLE, TASK)

    found = minted.keys
    assert (found.access_key, found.secret_key, found.token) == ("AKIAOWN", "own", "token")
    assert minted.made_from == "the keys in local_roles"


async def test_role_with_an_endpoint_alone_gets_keys_as_others_do(
    http: aiohttp.ClientSession, front: Front
) -> None:
    roles = {"*": {"endpoint_url": "http://127.0.0.1:4566"}}

    made_up = await make_mint(http, local_roles=roles).mint(ROLE, TASK)
    assumed = await make_mint(http, local_roles=roles, aws_endpoint_url=front.url).mint(ROLE, TASK)

    assert made_up.made_from == f"{MADE_UP}, for http://127.0.0.1:4566"
    assert assumed.made_from == "the role itself, for http://127.0.0.1:4566"
    assert [call.name for call in front.calls] == ["AssumeRole"]


@pytest.mark.parametrize(
    ("text", "mode", "fault"),
    [
        pytest.param("[other]\n", 0o600, "has no aws_access_key_id in profile dev", id="profile"),
        pytest.param(PROFILES, 0o644, "can be read by others than its owner", id="mode"),
    ],
)
async def test_profile_that_can_not_be_read_says_why(
    http: aiohttp.ClientSession, tmp_path: Path, text: str, mode: int, fault: str
) -> None:
    environ = {"AWS_SHARED_CREDENTIALS_FILE": str(write_keys(tmp_path, text, mode))}

    with pytest.raises(RoleError, match=f"profile dev, and the shared credentials file {fault}"):
        await make_mint(http, environ, local_roles={"*": {"profile": "dev"}}).mint(ROLE, TASK)


KEYS = (
    "<a><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>hush</SecretAccessKey>"
    "<SessionToken>{token}</SessionToken><Expiration>{ends}</Expiration></a>"
)


@pytest.mark.parametrize(
    ("token", "ends", "text"),
    [
        pytest.param("t", "2099-01-01T00:00:00", "what are no credentials", id="no time zone"),
        pytest.param("t", "tomorrow", "what are no credentials", id="no time"),
        pytest.param("", "2099-01-01T00:00:00Z", "what are no credentials", id="no token"),
        pytest.param("t", "2020-01-01T00:00:00Z", "ended at 2020-01-01 .* clock", id="past"),
    ],
)
async def test_credentials_that_nobody_could_use_are_a_failure(
    http: aiohttp.ClientSession, front: Front, token: str, ends: str, text: str
) -> None:
    """As such they are asked for again ever later."""
    front.faults.append((200, KEYS.format(token=token, ends=ends)))

    with pytest.raises(RoleError, match=text) as caught:
        await make_mint(http, aws_endpoint_url=front.url).mint(ROLE, TASK)

    assert caught.value.may_pass
    assert "hush" not in str(caught.value)
