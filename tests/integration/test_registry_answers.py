"""What registries and blob stores may answer, and what a pull makes of it."""

import base64
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.containerd.types import Descriptor
from fargate_agent.egress.retry import GaveUpError, Tries
from tests.fixtures.certificates import make_certificate
from tests.fixtures.registry import FakeRegistry, Fault, bind_loopback
from tests.fixtures.registry_client import (
    AUTH,
    FAST,
    FOR_EVER,
    SIGNED,
    add,
    opened,
    read_blob,
    refusal,
)


async def test_signed_url_is_asked_for_byte_for_byte(
    fake_registry: FakeRegistry, elsewhere: FakeRegistry
) -> None:
    name, image, layer = add(fake_registry)
    elsewhere.blobs.update(image.blobs)
    path = f"/v2/st%6Fre/blobs/{layer.digest}?{SIGNED}"
    fake_registry.faults[layer.digest].append(Fault(redirect=f"http://{elsewhere.host}{path}"))

    async with opened(name, fake_registry.host, elsewhere.host) as registry:
        assert await read_blob(registry, layer) == image.blobs[layer.digest]
    assert elsewhere.raw_paths == [path]


@pytest.mark.parametrize("has_password", [True, False])
async def test_registry_that_is_redirected_to_has_a_login_of_its_own(
    fake_registry: FakeRegistry, elsewhere: FakeRegistry, has_password: bool
) -> None:
    name, image, layer = add(fake_registry)
    elsewhere.add("mirror", "1", image)
    fake_registry.basic = f"Basic {AUTH}"
    other = base64.b64encode(b"bob:x").decode()
    elsewhere.token_realm, elsewhere.token = f"http://{elsewhere.host}/token", "token-of-mirror"
    elsewhere.basic = f"Basic {other}" if has_password else None
    mirror = f"http://{elsewhere.host}/v2/mirror"
    fake_registry.faults["manifests"].append(Fault(redirect=f"{mirror}/manifests/1"))
    fake_registry.faults[layer.digest].append(Fault(redirect=f"{mirror}/blobs/{layer.digest}"))
    auths = {fake_registry.host: AUTH} | ({elsewhere.host: other} if has_password else {})

    async with opened(name, fake_registry.host, elsewhere.host, auths=auths) as registry:
        assert (await registry.resolve()).target.digest == image.digest
        assert await read_blob(registry, layer) == image.blobs[layer.digest]

    asked = next(path for path in elsewhere.raw_paths if path.startswith("/token"))
    assert "repository%3Amirror%3Apull" in asked
    shown_there = {authorization for _, authorization in elsewhere.headers}
    assert shown_there == {"", "Bearer token-of-mirror"} | (
        {f"Basic {other}"} if has_password else set()
    )
    assert {one for _, one in fake_registry.headers} == {"", f"Basic {AUTH}"}


@pytest.mark.parametrize("location", ["ftp://h/x", "https://", "http://h:99999/", "http://[x/"])
async def test_redirect_to_what_is_no_url_is_said_at_once(
    fake_registry: FakeRegistry, location: str
) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.faults["manifests"].extend([Fault(redirect=location)] * FOR_EVER)

    error = await refusal(name, fake_registry.host)

    assert f"redirect to {location}: " in str(error)
    assert error.tries == 1


LIMIT = {"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull\nlimit."}]}


@pytest.mark.parametrize(
    ("status", "body", "tries", "text"),
    [
        pytest.param(
            400,
            b"Client sent an HTTP request\x1b to an HTTPS server.\n",
            1,
            "400 Bad Request - Server message: Client sent an HTTP request to an HTTPS server.",
            id="text",
        ),
        pytest.param(
            429,
            LIMIT,
            3,
            "429 Too Many Requests - Server message: toomanyrequests: You have reached your pull"
            " limit.",
            id="429",
        ),
        pytest.param(
            403,
            {"errors": [{"code": "DENIED", "message": "no"}, {"code": "NAME_UNKNOWN"}]},
            1,
            "403 Forbidden - Server message: denied: no; name unknown",
            id="403",
        ),
        pytest.param(503, {"message": "away"}, 3, "503 Service Unavailable - Server message: away"),
        pytest.param(400, {"errors": "x"}, 1, "400 Bad Request", id="no message"),
        pytest.param(500, None, 3, "500 Internal Server Error", id="no body"),
        pytest.param(410, ["x"], 1, "410 Gone", id="a list"),
        pytest.param(451, {"errors": [{"code": 7}]}, 1, "451 Unavailable For Legal Reasons"),
        pytest.param(501, None, 1, "501 Not Implemented"),
    ],
)
async def test_message_of_the_server_is_the_reason(
    fake_registry: FakeRegistry, status: int, body: object, tries: int, text: str
) -> None:
    name, _, _ = add(fake_registry)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "text/plain" if isinstance(body, bytes) else "application/json"}
    fault = Fault(status=status, body=data if body else b"", headers=headers)
    fake_registry.faults["manifests"].extend([fault] * FOR_EVER)

    error = await refusal(name, fake_registry.host)

    url = f"http://{fake_registry.host}/v2/web/manifests/1"
    assert str(error) == f"unexpected status from GET request to {url}: {text}"
    assert error.tries == tries


async def test_refused_login_says_why(fake_registry: FakeRegistry) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.challenges = ['Basic realm="x", error="insufficient_scope"']

    error = await refusal(name, fake_registry.host)

    assert str(error) == (
        "pull access denied, repository does not exist or may require authorization: "
        "server message: insufficient_scope: authorization failed"
    )


async def test_pause_that_the_registry_asks_for_is_kept(fake_registry: FakeRegistry) -> None:
    name, image, _ = add(fake_registry)
    fake_registry.faults["manifests"] = deque(
        [Fault(status=429, headers={"Retry-After": "1"}), Fault(status=503)]
    )
    told: list[str] = []

    async with opened(
        name, fake_registry.host, tries=Tries(retry=FAST, tell=told.append)
    ) as registry:
        assert (await registry.resolve()).target.digest == image.digest

    assert fake_registry.times[1] - fake_registry.times[0] >= 1
    assert fake_registry.times[2] - fake_registry.times[1] < 1
    assert [text.partition(": ")[0] for text in told] == ["try 2 of 3", "try 3 of 3", ""]
    assert told[0].endswith("429 Too Many Requests (in 1 s, as the server asks)")


async def test_each_request_has_tries_of_its_own(fake_registry: FakeRegistry) -> None:
    name, image, _ = add(fake_registry)
    fake_registry.faults["manifests"] = deque([Fault(status=500), Fault(status=500)])
    config = json.loads(image.document)["config"]
    fake_registry.faults[config["digest"]] = deque([Fault(status=500), Fault(status=500)])

    async with opened(name, fake_registry.host) as registry:
        await registry.resolve()
        descriptor = Descriptor(media_type="c", digest=config["digest"], size=config["size"])
        await registry.read(descriptor)

    assert fake_registry.count("manifests") == 3
    assert fake_registry.count(config["digest"]) == 3


@asynccontextmanager
async def tls_registry(directory: Path) -> AsyncIterator[FakeRegistry]:
    certificate, key = make_certificate("test", "127.0.0.1").write(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    registry = FakeRegistry()
    async with registry.serve(bind_loopback(), context):
        yield registry


async def test_certificate_of_an_unknown_authority_is_tried_once(tmp_path: Path) -> None:
    async with tls_registry(tmp_path) as registry:
        error = await refusal(f"{registry.host}/web:1")

    assert error.tries == 1
    assert (
        'manifests/1": tls: failed to verify certificate: x509: certificate signed by unknown'
        " authority; if the authority is your own, name a file with its certificate in the agent's"
        f' setting registries."{registry.host}".ca_file' in str(error)
    )


async def test_registry_without_tls_is_tried_once_and_the_setting_named(
    fake_registry: FakeRegistry,
) -> None:
    name, _, _ = add(fake_registry)

    error = await refusal(name)

    assert error.tries == 1
    assert str(error).endswith(
        ": http: server gave HTTP response to HTTPS client; to speak to it without TLS, list "
        f"{fake_registry.host} in the agent's setting insecure_registries"
    )


async def test_registry_with_tls_that_is_listed_as_insecure_says_what_it_answers(
    tmp_path: Path,
) -> None:
    async with tls_registry(tmp_path) as registry:
        error = await refusal(f"{registry.host}/web:1", registry.host)

    assert "manifests/1" in str(error)


@pytest.mark.parametrize("offset", [0, 7])
async def test_blob_is_read_from_an_offset(fake_registry: FakeRegistry, offset: int) -> None:
    name, image, layer = add(fake_registry)

    async with opened(name, fake_registry.host) as registry:
        assert await read_blob(registry, layer, offset) == image.blobs[layer.digest][offset:]
    assert fake_registry.ranges[layer.digest] == ["bytes=7-" if offset else ""]


@pytest.mark.parametrize("says_digest", [True, False], ids=["by HEAD", "by GET"])
async def test_parameters_of_a_media_type_are_not_looked_at(
    fake_registry: FakeRegistry, says_digest: bool
) -> None:
    name, image, _ = add(fake_registry)
    fake_registry.says_digest = says_digest
    media_type, document = fake_registry.manifests["1"]
    fake_registry.manifests["1"] = (f"{media_type.upper()} ;a={'(' * 3000}", document)

    async with opened(name, fake_registry.host) as registry:
        target = (await registry.resolve()).target

    assert (target.media_type, target.digest) == (image.media_type, image.digest)


@pytest.mark.parametrize(
    ("body", "in_chunks", "text"),
    [
        pytest.param(b"{ }", False, "the registry has 3 bytes, expected 2", id="more"),
        pytest.param(b"{ }", True, " is larger than 2 bytes", id="more, in chunks"),
        pytest.param(b"{", False, "the registry has 1 bytes, expected 2", id="less"),
        pytest.param(b"{", True, "the registry has 1 bytes, expected 2", id="less, in chunks"),
    ],
)
async def test_document_of_another_size_than_its_descriptor_says_is_refused(
    fake_registry: FakeRegistry, body: bytes, in_chunks: bool, text: str
) -> None:
    name, _, layer = add(fake_registry)
    fault = Fault(status=200, body=body, in_chunks=in_chunks)
    fake_registry.faults[layer.digest].extend([fault] * FOR_EVER)

    async with opened(name, fake_registry.host) as registry:
        with pytest.raises(GaveUpError) as caught:
            await registry.read(replace(layer, size=2))

    assert str(caught.value).endswith(text)
    assert caught.value.tries == 1


async def test_size_of_nothing_is_not_believed(fake_registry: FakeRegistry) -> None:
    """Some servers say of a HEAD what they send: nothing."""
    name, image, _ = add(fake_registry)
    media_type, document = fake_registry.manifests["1"]
    headers = {"Docker-Content-Digest": image.digest, "Content-Type": media_type}
    headers["Content-Length"] = "0"
    fake_registry.faults["manifests"].append(Fault(status=200, headers=headers))

    async with opened(name, fake_registry.host) as registry:
        resolved = await registry.resolve()

    assert (resolved.target.size, resolved.data) == (len(document), document)


async def test_error_of_a_challenge_is_one_short_line(fake_registry: FakeRegistry) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.challenges = [f'Basic realm="x", error="a\t\tb{"c" * 8000}"']

    error = await refusal(name, fake_registry.host)

    assert "server message: a bccc" in str(error)
    assert len(str(error)) < 600
