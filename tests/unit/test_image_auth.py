import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.registry.auth import Credentials, read_auth_file
from fargate_agent.image.registry.hosts import Hosts

ANN = Credentials(username="ann", password="pa:ss")
AUTH = {"auth": base64.b64encode(b"ann:pa:ss").decode()}


async def find(file: Path, registry: str, *insecure: str) -> Credentials | None:
    hosts = Hosts(insecure=frozenset(insecure))
    return await (await asyncio.to_thread(read_auth_file, file, hosts)).find(registry)


def write(directory: Path, document: Any) -> Path:
    file = directory / "config.json"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        pytest.param("host:5000", "host:5000", id="host"),
        pytest.param("https://registry.test", "registry.test", id="url"),
        pytest.param("https://registry.test/v1/", "registry.test", id="url-with-path"),
        pytest.param("index.docker.io/v1/", "docker.io", id="hub"),
    ],
)
async def test_credentials_are_found_under_every_way_to_write_the_registry(
    tmp_path: Path, key: str, registry: str
) -> None:
    assert await find(write(tmp_path, {"auths": {key: AUTH}}), registry) == ANN


@pytest.mark.parametrize(
    ("key", "registry", "insecure", "is_found"),
    [
        pytest.param("registry.test", "Registry.TEST", (), True, id="capitals"),
        pytest.param("Registry.TEST", "registry.test", (), True, id="capitals in the file"),
        pytest.param("registry.test", "registry.test:443", (), True, id="port of HTTPS"),
        pytest.param("https://registry.test:443/v2/", "registry.test", (), True, id="in the file"),
        pytest.param("registry.test:5000", "Registry.test:5000", (), True, id="another port"),
        pytest.param("[fd00::1]:5000", "[FD00:0::1]:5000", (), True, id="address"),
        pytest.param("index.docker.io/v1/", "registry-1.docker.io:443", (), True, id="hub"),
        pytest.param("r.test", "R.test:80", ("r.test",), True, id="port of HTTP"),
        pytest.param("r.test:80", "r.test", ("r.test",), True, id="port of HTTP in the file"),
        pytest.param("r.test", "r.test:80", (), False, id="port of HTTP, by TLS"),
        pytest.param("r.test:80", "r.test", (), False, id="port of HTTP in the file, by TLS"),
        pytest.param("r.test", "r.test:443", ("r.test",), False, id="port of HTTPS, without TLS"),
        pytest.param("r.test:443", "r.test", ("r.test",), False, id="in the file, without TLS"),
        pytest.param("r.test", "r.test:443", ("r.test:443",), False, id="that port without TLS"),
        pytest.param("r.test", "r.test:5000", (), False, id="only one has a port"),
        pytest.param("r.test", "x.r.test", (), False, id="another host"),
        pytest.param("docker.io", "Docker.io", (), False, id="not the host of the hub's images"),
        pytest.param("x y:z", "r.test", (), False, id="no host"),
    ],
)
async def test_entry_counts_for_every_name_of_whom_it_stands_for_and_for_nobody_else(
    tmp_path: Path, key: str, registry: str, insecure: tuple[str, ...], is_found: bool
) -> None:
    file = write(tmp_path, {"auths": {key: AUTH}})

    assert await find(file, registry, *insecure) == (ANN if is_found else None)


async def test_entry_that_is_written_as_the_image_has_it_counts_first(tmp_path: Path) -> None:
    other = {"username": "bob", "password": "x"}
    file = write(tmp_path, {"auths": {"r.test": other, "r.test:443": AUTH}})

    assert await find(file, "r.test:443") == ANN
    assert await find(file, "R.test:443") == Credentials(username="bob", password="x")


async def test_credentials_may_be_written_as_username_and_password(tmp_path: Path) -> None:
    file = write(tmp_path, {"auths": {"registry.test": {"username": "ann", "password": "pa:ss"}}})

    assert await find(file, "registry.test") == ANN


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({}, id="empty"),
        pytest.param({"auths": {"other.test": AUTH}}, id="another-registry"),
        pytest.param({"auths": {"registry.test": {}}}, id="kept-by-a-program"),
    ],
)
async def test_registry_without_credentials_has_none(tmp_path: Path, document: Any) -> None:
    assert await find(write(tmp_path, document), "registry.test") is None


async def test_file_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert await find(tmp_path / "config.json", "registry.test") is None


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="list"),
        pytest.param({"auths": "x"}, id="auths"),
        pytest.param({"auths": {"registry.test": {"auth": "s3cret"}}}, id="not-base64"),
    ],
)
async def test_file_that_is_wrong_is_an_error_that_shows_nothing_of_it(
    tmp_path: Path, document: Any
) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        await find(write(tmp_path, document), "registry.test")

    assert "registry credentials" in str(caught.value)
    assert "s3cret" not in repr(caught.value)


def test_password_is_not_shown() -> None:
    assert "pa:ss" not in repr(ANN)
