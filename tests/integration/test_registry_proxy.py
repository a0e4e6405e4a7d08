"""Registries behind a proxy, and registries with a certificate authority of their own."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fargate_agent.egress.retry import GaveUpError
from fargate_agent.image.registry.hosts import Hosts, OwnSettings
from tests.fixtures.certificates import make_certificate
from tests.fixtures.proxy import FakeProxy
from tests.fixtures.registry import FakeRegistry, bind_loopback
from tests.fixtures.registry_client import SECRET, add, opened, read_blob, refusal

NAME = "registry.test:5000"
"""Nobody but a proxy knows where it is."""


@pytest.fixture
async def proxy() -> AsyncIterator[FakeProxy]:
    made = FakeProxy()
    async with made.serve():
        yield made


@pytest.fixture
async def tls_registry(tmp_path: Path) -> AsyncIterator[FakeRegistry]:
    certificate, key = make_certificate("test", "127.0.0.1").write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    registry = FakeRegistry()
    async with registry.serve(bind_loopback(), context):
        yield registry


async def test_registry_without_tls_is_asked_through_the_proxy_that_knows_its_name(
    fake_registry: FakeRegistry, proxy: FakeProxy
) -> None:
    _, image, blob = add(fake_registry)
    proxy.login = ("ann", "p:s3cret-pa55/")
    proxy.names[NAME] = ("127.0.0.1", fake_registry.port)
    url = f"http://ann:p%3As3cret-pa55%2F@127.0.0.1:{proxy.port}"
    hosts = Hosts(insecure=frozenset({NAME}), proxy=url).for_registry(NAME)

    async with opened(f"{NAME}/web:1", hosts=hosts) as registry:
        assert (await registry.resolve()).target.digest == image.digest
        assert await read_blob(registry, blob) == image.blobs[blob.digest]

    assert proxy.requests[0] == f"HEAD http://{NAME}/v2/web/manifests/1"
    assert len(set(proxy.shown)) == 1
    assert [authorization for _, authorization in fake_registry.headers] == ["", ""]


async def test_registry_with_tls_is_asked_through_a_tunnel(
    tls_registry: FakeRegistry, proxy: FakeProxy, tmp_path: Path
) -> None:
    _, image, blob = add(tls_registry)
    proxy.login = ("ann", SECRET)
    own = {tls_registry.host: OwnSettings(ca_file=tmp_path / "cert.pem")}
    url = f"http://ann:{SECRET}@127.0.0.1:{proxy.port}"
    hosts = Hosts(own=own, proxy=url).for_registry(tls_registry.host)

    async with opened(f"{tls_registry.host}/web:1", hosts=hosts) as registry:
        assert (await registry.resolve()).target.digest == image.digest
        assert await read_blob(registry, blob) == image.blobs[blob.digest]

    assert set(proxy.requests) == {f"CONNECT {tls_registry.host}"}


async def test_token_service_is_asked_through_the_proxy_of_the_registry_unless_it_is_listed(
    fake_registry: FakeRegistry, proxy: FakeProxy
) -> None:
    elsewhere = FakeRegistry()
    async with elsewhere.serve(bind_loopback()):
        name, _, _ = add(fake_registry)
        fake_registry.token_realm = f"http://{elsewhere.host}/token"
        hosts = Hosts(
            insecure=frozenset({fake_registry.host, elsewhere.host}),
            own={fake_registry.host: OwnSettings(proxy=proxy.url)},
        )
        for no_proxy, count in (((), 1), ((elsewhere.host,), 0)):
            proxy.requests.clear()
            seen = Hosts(insecure=hosts.insecure, own=hosts.own, no_proxy=no_proxy)
            async with opened(name, hosts=seen.for_registry(fake_registry.host)) as registry:
                await registry.resolve()
            assert sum("/token" in one for one in proxy.requests) == count
            assert any("/manifests/" in one for one in proxy.requests)


@pytest.mark.parametrize(
    ("status", "tries", "text"),
    [
        pytest.param(
            407,
            1,
            "the proxy answered 407 Refused; give the user and the password that it takes:"
            " http://USER:PASSWORD@HOST:PORT",
            id="wants a password",
        ),
        pytest.param(
            403,
            1,
            "the proxy answered 403 Refused; let it connect to registry.test:5000, or list"
            " registry.test:5000 in registry_no_proxy",
            id="forbids it",
        ),
        pytest.param(503, 3, "the proxy answered 503 Refused", id="can't reach it"),
    ],
)
async def test_refusal_of_a_proxy_names_it_and_its_setting(
    proxy: FakeProxy, status: int, tries: int, text: str
) -> None:
    proxy.status = status
    url = f"http://ann:{SECRET}@127.0.0.1:{proxy.port}"
    hosts = Hosts(proxy=url).for_registry(NAME)

    error = await refusal(f"{NAME}/web:1", hosts=hosts)

    assert error.tries == tries
    assert str(error) == (
        f'failed to do request: Head "https://{NAME}/v2/web/manifests/1": through the proxy'
        f" {proxy.url} of the agent's setting registry_proxy: {text}"
    )


async def test_proxy_that_wants_a_password_of_a_registry_without_tls(proxy: FakeProxy) -> None:
    proxy.login = ("ann", SECRET)
    own = {NAME: OwnSettings(proxy=proxy.url)}
    hosts = Hosts(insecure=frozenset({NAME}), own=own).for_registry(NAME)

    error = await refusal(f"{NAME}/web:1", hosts=hosts)

    assert error.tries == 1
    assert f'of the agent\'s setting registries."{NAME}".proxy: the proxy answered 407' in str(
        error
    )


async def test_proxy_that_nobody_answers_at_is_named_without_its_password() -> None:
    with bind_loopback() as unused:
        port = unused.getsockname()[1]
        hosts = Hosts(proxy=f"http://ann:{SECRET}@127.0.0.1:{port}").for_registry(NAME)

        error = await refusal(f"{NAME}/web:1", hosts=hosts)

    assert (
        f"through the proxy http://127.0.0.1:{port} of the agent's setting registry_proxy: dial"
        f" tcp 127.0.0.1:{port}: connect: connection refused" in str(error)
    )
    assert SECRET not in f"{error}{error.__cause__!r}"


async def test_authority_of_another_registry_is_not_trusted(
    tls_registry: FakeRegistry, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other, _ = make_certificate("test", "127.0.0.1").write(tmp_path / "other")
    add(tls_registry)
    hosts = Hosts(own={tls_registry.host: OwnSettings(ca_file=other)})

    error = await refusal(f"{tls_registry.host}/web:1", hosts=hosts.for_registry(tls_registry.host))

    assert error.tries == 1
    assert str(error).endswith(
        "x509: certificate signed by unknown authority; the certificates of the agent's setting"
        f' registries."{tls_registry.host}".ca_file are not those of its authority'
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "No such file or directory"), ("text\n", "the file holds no certificate in PEM form")],
)
async def test_file_of_certificates_that_cannot_be_used_is_said_by_its_setting(
    tls_registry: FakeRegistry, tmp_path: Path, content: str | None, text: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    hosts = Hosts(own={tls_registry.host: OwnSettings(ca_file=file)})

    error = await refusal(f"{tls_registry.host}/web:1", hosts=hosts.for_registry(tls_registry.host))

    assert isinstance(error, GaveUpError)
    assert error.tries == 1
    assert f'the agent\'s setting registries."{tls_registry.host}".ca_file: {text}' in str(error)
    assert str(tmp_path) not in str(error)
