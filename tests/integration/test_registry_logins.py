"""How registries and token services may ask for a login, and what they are not shown."""

import json

import pytest

from tests.fixtures.registry import FakeRegistry, Fault
from tests.fixtures.registry_client import (
    AUTH,
    FOR_EVER,
    SIGNED,
    add,
    opened,
    refusal,
)


@pytest.mark.parametrize(
    "fields",
    [
        ['BEARER Realm="{}?service=reg",SERVICE="s"'],
        ['Basic realm="x", Bearer realm = "{}?service=reg" , service = s'],
        ["Negotiate", "Bearer realm={}?service=reg"],
        ['Bearer error="x", Bearer realm="{}?service=reg"'],
    ],
    ids=["case", "second, spaces", "second field, no quotes", "second bearer"],
)
async def test_token_is_fetched_however_the_registry_says_where(
    fake_registry: FakeRegistry, fields: list[str]
) -> None:
    name, image, _ = add(fake_registry)
    realm = f"http://{fake_registry.host}/token"
    fake_registry.challenges = [field.format(realm) for field in fields]

    async with opened(name, fake_registry.host) as registry:
        assert (await registry.resolve()).target.digest == image.digest


async def test_realm_is_asked_byte_for_byte_and_for_each_scope(fake_registry: FakeRegistry) -> None:
    name, _, _ = add(fake_registry)
    realm = f"http://{fake_registry.host}/token?{SIGNED}#fragment"
    scopes = "repository:web:pull repository:base:pull"
    fake_registry.challenges = [f'Bearer realm="{realm}",service="a b",scope="{scopes}"']

    async with opened(name, fake_registry.host) as registry:
        await registry.resolve()

    asked = next(path for path in fake_registry.raw_paths if path.startswith("/token"))
    assert asked == (
        f"/token?{SIGNED}&scope=repository%3Aweb%3Apull&scope=repository%3Abase%3Apull&service=a+b"
    )


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("Bearer", "the registry wants a token, but names no realm to ask"),
        ('Bearer service="s"', "the registry wants a token, but names no realm to ask"),
        ('Bearer realm="/token?x=1"', "token realm '/token' can't be asked: not an absolute http"),
        ('Bearer realm="https:///token"', "token realm 'https:///token' can't be asked"),
        ('Bearer realm="http://h:99999/token"', "can't be asked: Port out of range 0-65535"),
        ('Bearer realm="http://[x/"', "can't be asked: Invalid IPv6 URL"),
        ('Bearer realm="http://other.test/t"', "other.test is not listed as an insecure registry"),
    ],
)
async def test_realm_that_cannot_be_asked_is_said_at_once(
    fake_registry: FakeRegistry, field: str, text: str
) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.challenges = [field]

    error = await refusal(name, fake_registry.host)

    assert error.tries == 1
    assert str(error).startswith("failed to authorize: ")
    assert text in str(error)


async def test_token_service_that_moved_is_followed_without_the_password(
    fake_registry: FakeRegistry, elsewhere: FakeRegistry
) -> None:
    name, image, _ = add(fake_registry)
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    fake_registry.token_faults.append(Fault(redirect=f"http://{elsewhere.host}/token?{SIGNED}"))
    hosts = (fake_registry.host, elsewhere.host)

    async with opened(name, *hosts, auths={fake_registry.host: AUTH}) as registry:
        assert (await registry.resolve()).target.digest == image.digest

    assert elsewhere.raw_paths == [f"/token?{SIGNED}"]
    assert elsewhere.headers == [(elsewhere.host, "")]
    assert fake_registry.headers[1] == (fake_registry.host, f"Basic {AUTH}")


async def test_token_service_has_tries_of_its_own(fake_registry: FakeRegistry) -> None:
    name, image, _ = add(fake_registry)
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    fake_registry.token_faults.extend([Fault(status=503)] * 2)

    async with opened(name, fake_registry.host) as registry:
        assert (await registry.resolve()).target.digest == image.digest
    assert fake_registry.count("/token") == 3

    fake_registry.token = "another"
    fake_registry.token_faults.extend([Fault(status=503)] * FOR_EVER)
    error = await refusal(name, fake_registry.host)
    assert (error.tries, fake_registry.count("/token")) == (3, 6)
    assert "failed to fetch anonymous token: unexpected status from GET request" in str(error)


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("good\r\nX-Other: 1", "the token can't be sent in a header"),
        ("", "the token can't be sent in a header"),
        (7, "'token' is not text"),
    ],
)
async def test_token_that_is_none_is_never_sent(
    fake_registry: FakeRegistry, token: object, text: str
) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    answer = json.dumps({"token": token, "access_token": ""}).encode()
    fake_registry.token_faults.extend([Fault(status=200, body=answer)] * FOR_EVER)

    error = await refusal(name, fake_registry.host)

    assert str(error).endswith(text)
    assert {authorization for _, authorization in fake_registry.headers} == {""}


async def test_registry_that_takes_no_token_is_not_asked_for_ever(
    fake_registry: FakeRegistry,
) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    answers = [json.dumps({"token": f"wrong-{n}"}).encode() for n in range(FOR_EVER)]
    fake_registry.token_faults.extend(Fault(status=200, body=answer) for answer in answers)

    error = await refusal(name, fake_registry.host)

    assert "pull access denied" in str(error)
    assert (error.tries, fake_registry.count("/token")) == (1, 1)
