import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.registry.auth import Credentials, read_auth_file

ANN = Credentials(username="ann", password="pa:ss")
AUTH = {"auth": base64.b64encode(b"ann:pa:ss").decode()}


async def find(file: Path, registry: str) -> Credentials | None:
    return await (await asyncio.to_thread(read_auth_file, file)).find(registry)


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
