"""What `make uninstall` and `make purge` take back, with a real containerd."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from fargate_agent.cli.failure import UnreachableError
from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError, FailedPreconditionError
from fargate_agent.containerd.processes import RuncOptions
from fargate_agent.installation.leftovers import purge_namespace, stop_tasks, sweep_machine
from fargate_agent.network.names import metadata_netns_name, name_instance
from fargate_agent.network.netns import KernelNetns
from fargate_agent.settings import AgentSettings
from tests.fixtures.busybox import SNAPSHOTTER, import_busybox, prepare_busybox
from tests.fixtures.containerd import PrivateContainerd

DEADLINE_S: Final = 30.0

pytestmark = pytest.mark.root


@pytest.fixture
def settings(private_containerd: PrivateContainerd, tmp_path: Path) -> AgentSettings:
    return AgentSettings(
        containerd_address=private_containerd.socket,
        containerd_namespace=f"test-{secrets.token_hex(4)}",
        state_dir=tmp_path / "state",
        netns_dir=tmp_path / "netns",
    )


@pytest.fixture
async def client(settings: AgentSettings) -> AsyncIterator[Containerd]:
    """A client with a namespace in which an agent has worked."""
    async with Containerd(settings.containerd_address, settings.containerd_namespace) as client:
        await client.ensure_namespace()
        yield client
        await purge_namespace(settings, print)


async def start_container(client: Containerd) -> str:
    """Have a container that runs; return its id."""
    id_ = f"left-{secrets.token_hex(4)}"
    await prepare_busybox(client, id_, ["sleep", "600"])
    mounts = await client.snapshots(SNAPSHOTTER).mounts(id_)
    await client.processes.create(
        id_, mounts, log_uri=None, terminal=False, options=RuncOptions(), deadline_s=DEADLINE_S
    )
    await client.processes.start(id_)
    return id_


async def test_purge_removes_images_containers_and_the_namespace(
    client: Containerd, settings: AgentSettings, private_containerd: PrivateContainerd
) -> None:
    image = await import_busybox(client)
    await start_container(client)
    blobs = private_containerd.directory / "root/io.containerd.content.v1.content/blobs/sha256"
    digest = image.manifest.digest.removeprefix("sha256:")
    assert (blobs / digest).exists()
    said: list[str] = []

    await purge_namespace(settings, said.append)

    assert f"removed containerd namespace {settings.containerd_namespace}; images: 1" in said
    assert not (blobs / digest).exists()
    await client.ensure_namespace()
    assert not await client.images.list()
    assert not await client.containers.list()
    assert not await client.leases.list()
    assert not await client.content.list()
    assert not await client.snapshots(SNAPSHOTTER).list()


async def test_purge_may_be_repeated(client: Containerd, settings: AgentSettings) -> None:
    await import_busybox(client)

    for images in (1, 0):
        said: list[str] = []
        await purge_namespace(settings, said.append)
        assert said[-1].endswith(f"images: {images}")


async def test_namespace_with_something_in_it_is_not_removed(client: Containerd) -> None:
    await import_busybox(client)

    with pytest.raises(FailedPreconditionError, match="must be empty"):
        await client.remove_namespace()


async def test_sweep_ends_what_an_agent_left_and_keeps_images(
    client: Containerd, settings: AgentSettings
) -> None:
    image = await import_busybox(client)
    container = await start_container(client)
    netns = settings.netns_dir / f"fargate-{secrets.token_hex(8)}"
    netns.parent.mkdir()
    instance = name_instance(settings.state_dir)
    await KernelNetns(instance, settings.netns_dir, lambda: True).ensure(netns)
    said: list[str] = []

    await sweep_machine(settings, said.append)

    assert sorted(said) == sorted(
        [
            f"removed {netns.name}",
            f"removed {metadata_netns_name(instance)}",
            f"removed container {container}",
        ]
    )
    assert list(settings.netns_dir.iterdir()) == []
    assert [record.name for record in await client.images.list()] == [image.name]


async def test_without_containerd_there_are_no_images_to_remove(tmp_path: Path) -> None:
    gone = tmp_path / "containerd.sock"
    settings = AgentSettings(containerd_address=gone, netns_dir=tmp_path, state_dir=tmp_path)
    said: list[str] = []

    await sweep_machine(settings, said.append)
    await purge_namespace(settings, said.append)

    assert said == [f"no containerd at {gone}: images are left alone"]


async def test_containerd_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / "containerd.sock"
    dead.touch()
    monkeypatch.setattr("fargate_agent.installation.leftovers.SERVED_TIMEOUT_S", 0.2)

    with pytest.raises(ContainerdError, match=f"containerd at {dead} doesn't answer"):
        await purge_namespace(AgentSettings(containerd_address=dead), print)


async def test_no_agent_to_stop_tasks_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="no agent answers"):
        await stop_tasks(tmp_path / "agent.sock", print)
