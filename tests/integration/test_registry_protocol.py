"""Logging in, redirects, TLS and names: what a registry may demand, and what it is not given."""

import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fargate_agent.errors import CannotPullContainerError
from fargate_agent.network.namespaces import socket_in_netns
from tests.fixtures.certificates import make_certificate
from tests.fixtures.images import build_image
from tests.fixtures.nameserver import NameServer
from tests.fixtures.pulls import Puller
from tests.fixtures.registry import (
    REGISTRY_ADDRESS,
    REGISTRY_PORT,
    FakeRegistry,
    Fault,
    RealRegistry,
    bind_loopback,
)

pytestmark = pytest.mark.root

SECRET = "s3cret-pa55"
BASIC = f"Basic {base64.b64encode(f'ann:{SECRET}'.encode()).decode()}"


@pytest.fixture
async def other_host() -> AsyncIterator[FakeRegistry]:
    """A second server, as registries have for tokens and blobs."""
    registry = FakeRegistry()
    async with registry.serve(bind_loopback()):
        yield registry


@pytest.fixture
def auth_file(tmp_path: Path, fake_registry: FakeRegistry) -> Path:
    file = tmp_path / "config.json"
    auth = base64.b64encode(f"ann:{SECRET}".encode()).decode()
    file.write_text(json.dumps({"auths": {fake_registry.host: {"auth": auth}}}))
    return file


async def test_token_is_fetched_once_and_shown_to_the_registry(
    puller: Puller, fake_registry: FakeRegistry, auth_file: Path
) -> None:
    name = fake_registry.add("private", "1", build_image())
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    fake_registry.basic = BASIC

    await puller.pull(name, auth_file=auth_file)

    assert fake_registry.count("/token") == 1
    shown = {authorization for _, authorization in fake_registry.headers}
    assert shown == {"", BASIC, "Bearer token-1"}


async def test_token_that_expires_during_a_pull_is_replaced(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image()
    name = fake_registry.add("public", "1", image)
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    fake_registry.token_uses = 2

    assert (await puller.pull(name)).digest == image.digest
    assert fake_registry.count("/token") == 2


async def test_password_is_shown_to_a_registry_that_asks_for_it(
    puller: Puller, fake_registry: FakeRegistry, auth_file: Path
) -> None:
    name = fake_registry.add("private", "1", build_image())
    fake_registry.basic = BASIC

    await puller.pull(name, auth_file=auth_file)

    assert fake_registry.headers[0] == (fake_registry.host, "")
    assert fake_registry.headers[1] == (fake_registry.host, BASIC)


@pytest.mark.parametrize("realm", [True, False], ids=["bearer", "basic"])
async def test_wrong_password_is_refused_at_once_and_not_shown(
    puller: Puller,
    fake_registry: FakeRegistry,
    auth_file: Path,
    realm: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = fake_registry.add("private", "1", build_image())
    fake_registry.basic = "Basic another"
    if realm:
        fake_registry.token_realm = f"http://{fake_registry.host}/token"

    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(name, auth_file=auth_file)

    assert "has been retried 1 time(s)" in caught.value.reason
    assert "authoriz" in caught.value.reason
    for secret in (SECRET, BASIC.removeprefix("Basic ")):
        assert secret not in caught.value.reason + caplog.text


async def test_credentials_file_that_is_no_json_is_said_without_its_text(
    puller: Puller, fake_registry: FakeRegistry, auth_file: Path
) -> None:
    auth_file.write_text(f"auth: {SECRET}")

    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(f"{fake_registry.host}/private:1", auth_file=auth_file)

    assert caught.value.reason == (
        "CannotPullContainerError: the agent's file of registry credentials is not JSON"
    )


async def test_redirect_to_another_host_is_followed_without_credentials(
    puller: Puller, fake_registry: FakeRegistry, other_host: FakeRegistry, auth_file: Path
) -> None:
    image = build_image()
    name = fake_registry.add("private", "1", image)
    other_host.add("private", "1", image)
    fake_registry.basic = BASIC
    url = f"http://{other_host.host}/v2/private/blobs/{image.layers[0]}?signature=1"
    fake_registry.faults[image.layers[0]].append(Fault(redirect=url))
    insecure = (fake_registry.host, other_host.host)

    await puller.pull(name, auth_file=auth_file, insecure_registries=insecure)

    assert other_host.headers == [(other_host.host, "")]
    assert fake_registry.sent[image.layers[0]] == 0


async def test_redirect_to_a_host_without_tls_that_is_not_listed_is_refused(
    puller: Puller, fake_registry: FakeRegistry, other_host: FakeRegistry
) -> None:
    image = build_image()
    name = fake_registry.add("web", "1", image)
    url = f"http://{other_host.host}/v2/web/blobs/{image.layers[0]}"
    fake_registry.faults[image.layers[0]].append(Fault(redirect=url))

    with pytest.raises(CannotPullContainerError, match="not listed as an insecure registry"):
        await puller.pull(name)
    assert other_host.requests == []


async def test_redirects_in_a_circle_come_to_an_end(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name = fake_registry.add("web", "1", build_image())
    circle = Fault(redirect="/v2/web/manifests/1")
    fake_registry.faults["manifests"].extend([circle] * 100)

    with pytest.raises(CannotPullContainerError, match="stopped after 10 redirects"):
        await puller.pull(name)


async def test_registry_that_is_not_listed_is_only_spoken_to_with_tls(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name = fake_registry.add("web", "1", build_image())

    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(name, insecure_registries=())

    assert (
        f'Head "https://{fake_registry.host}/v2/web/manifests/1": http: server gave HTTP'
        in caught.value.reason
    )
    assert fake_registry.requests == []


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "unknown"])
async def test_certificate_of_a_registry_is_verified(
    puller: Puller, tmp_path: Path, trusted: bool
) -> None:
    certificate, key = make_certificate("test", "127.0.0.1").write(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate)) if trusted else None
    registry, image = FakeRegistry(), build_image()
    async with registry.serve(bind_loopback(), server):
        name = registry.add("web", "1", image)

        if trusted:
            assert (await puller.pull(name, trusted=client)).digest == image.digest
        else:
            with pytest.raises(CannotPullContainerError) as caught:
                await puller.pull(name)
            assert "x509: certificate signed by unknown authority" in caught.value.reason


@pytest.mark.parametrize("spelling", [REGISTRY_ADDRESS, f"{REGISTRY_ADDRESS}:80"])
@pytest.mark.parametrize("key", [REGISTRY_ADDRESS, f"{REGISTRY_ADDRESS}:80"])
async def test_login_counts_with_and_without_the_port_that_is_asked_anyway(
    task_puller: Puller,
    registry_netns: tuple[Path, Path],
    tmp_path: Path,
    key: str,
    spelling: str,
) -> None:
    registry, image = FakeRegistry(basic=BASIC), build_image()
    registry.add("private", "1", image)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {key: {"username": "ann", "password": SECRET}}}))
    sock = socket_in_netns(registry_netns[0], socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((REGISTRY_ADDRESS, 80))
    task = await task_puller.task(registry_netns[1])

    async with registry.serve(sock):
        pulled = await task_puller.pull(
            f"{spelling}/private:1", task, insecure_registries=(REGISTRY_ADDRESS,), auth_file=file
        )

    assert pulled.digest == image.digest


async def test_name_of_a_registry_is_resolved_inside_the_task(
    task_puller: Puller, real_registry: RealRegistry
) -> None:
    image = build_image()
    await real_registry.push("web", "1", image)
    server = NameServer(records={("registry.search.test", "A"): [REGISTRY_ADDRESS]})
    host = f"registry:{REGISTRY_PORT}"
    udp, tcp = (
        socket_in_netns(real_registry.registry_netns, socket.AF_INET, kind)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    )
    for sock in (udp, tcp):
        sock.setblocking(False)
        sock.bind((REGISTRY_ADDRESS, 53))
    task = await task_puller.task(real_registry.netns, servers=(REGISTRY_ADDRESS,))

    async with server.serve(udp, tcp):
        pulled = await task_puller.pull(f"{host}/web:1", task, insecure_registries=(host,))

    assert pulled.digest == image.digest
    assert server.queries == ["udp registry.search.test A"]


async def test_name_that_nobody_knows_is_no_such_host(
    task_puller: Puller, real_registry: RealRegistry
) -> None:
    udp, tcp = (
        socket_in_netns(real_registry.registry_netns, socket.AF_INET, kind)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    )
    for sock in (udp, tcp):
        sock.setblocking(False)
        sock.bind((REGISTRY_ADDRESS, 53))
    task = await task_puller.task(real_registry.netns, servers=(REGISTRY_ADDRESS,))

    async with NameServer().serve(udp, tcp):
        with pytest.raises(CannotPullContainerError) as caught:
            await task_puller.pull("registry.test/web:1", task)

    assert caught.value.reason == (
        "CannotPullContainerError: pull image manifest has been retried 3 time(s): failed to "
        'resolve ref registry.test/web:1: failed to do request: Head "https://registry.test/v2/'
        'web/manifests/1": dial tcp: lookup registry.test: no such host'
    )
