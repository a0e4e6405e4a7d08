"""What every `NetnsDriver` promises. A driver is one more line in `DRIVERS`."""

import os
from pathlib import Path

import pytest

from fargate_agent.drivers import NetnsDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.netns import KernelNetns

DRIVERS = [pytest.param(KernelNetns, id="kernel", marks=pytest.mark.root)]


@pytest.fixture(params=DRIVERS)
def driver(
    request: pytest.FixtureRequest, instance: str, metadata_netns: MetadataNetns
) -> NetnsDriver:
    driver: NetnsDriver = request.param(instance, metadata_netns.path.parent, lambda: False)
    return driver


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "netns" / "fargate-1"


async def test_ensure_may_be_repeated(driver: NetnsDriver, path: Path) -> None:
    await driver.ensure(path)
    before = path.stat()

    await driver.ensure(path)

    assert os.path.samestat(before, path.stat())
    await driver.release(path)


async def test_release_may_be_repeated(driver: NetnsDriver, path: Path) -> None:
    await driver.ensure(path)

    await driver.release(path)
    await driver.release(path)

    assert not path.exists()


async def test_release_of_what_never_was_succeeds(driver: NetnsDriver, path: Path) -> None:
    await driver.release(path)


async def test_ensure_after_release_makes_another(driver: NetnsDriver, path: Path) -> None:
    await driver.ensure(path)
    await driver.release(path)

    await driver.ensure(path)

    assert path.exists()
    await driver.release(path)


async def test_ensure_raises_a_task_error_without_a_path_when_it_is_refused(
    driver: NetnsDriver, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ResourceInitializationError) as refusal:
        await driver.ensure(tmp_path / "file" / "fargate-1")

    assert str(tmp_path) not in refusal.value.reason
