"""What `make uninstall` and `make purge` take back, with a real containerd."""

import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import pytest

from fargate_agent.cli.failure import UnreachableError
from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError, FailedPreconditionError
from fargate_agent.containerd.processes import RuncOptions
from fargate_agent.installation import __main__ as installation
from fargate_agent.installation import leftovers
from fargate_agent.installation.leftovers import purge_namespace, stop_tasks, sweep_machine
from fargate_agent.network.names import metadata_netns_name, name_instance
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EfsPlan, HostPaths, plan_task
from fargate_agent.runtime.secret_files import DIRECTORY as SECRET_FILES
from fargate_agent.settings import AgentSettings
from fargate_agent.volumes.efs import EfsVolumes, Resolve
from fargate_agent.volumes.host import HostVolumes
from fargate_agent.volumes.mounts import detach, list_mounts
from tests.fixtures.busybox import SNAPSHOTTER, import_busybox, prepare_busybox
from tests.fixtures.containerd import PrivateContainerd
from tests.messages import container_json, site, task_message

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
    async with KernelNetns(instance, settings.netns_dir, lambda: True) as driver:
        await driver.ensure(netns)
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


@pytest.fixture
def state_dir(settings: AgentSettings) -> Iterator[Path]:
    """Where nothing is mounted any more after a test."""
    yield settings.state_dir
    for mount in list_mounts(settings.state_dir):
        detach(mount.mountpoint)


async def bind_directories(state_dir: Path, code: Path) -> None:
    """Bind a directory of the machine for a task, as a host volume and for EFS."""
    message = task_message(
        container_json(),
        volumes=[{"name": "v", "host": {"sourcePath": str(code)}}],
    )
    task = plan_task(message, site(state_dir))
    (volume,) = task.volumes
    task.directory.mkdir(parents=True)
    await HostVolumes(HostPaths(allowed=(code,))).ensure(task, volume)
    efs = EfsPlan(file_system_id="fs-01234567", path="/", directory=code)
    on_efs = replace(volume, source=task.directory / "efs/v", host_path=None, efs=efs)
    async with EfsVolumes(state_dir / "tasks", cast("Resolve", None), socket_in_netns) as driver:
        await driver.ensure(task, on_efs)
    (task.directory / SECRET_FILES).mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", task.directory / SECRET_FILES], check=True, timeout=30
    )
    assert len(list_mounts(state_dir)) == 3


@pytest.mark.parametrize("is_served", [True, False], ids=["containerd", "dead containerd"])
async def test_sweep_unmounts_directories_of_the_machine_and_leaves_what_is_in_them(
    settings: AgentSettings,
    state_dir: Path,
    tmp_path: Path,
    is_served: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "main").touch()
    await bind_directories(state_dir, code)

    if is_served:
        await sweep_machine(settings, print)
    else:
        dead = tmp_path / "containerd.sock"
        dead.touch()
        monkeypatch.setattr("fargate_agent.installation.leftovers.SERVED_TIMEOUT_S", 0.2)
        with pytest.raises(ContainerdError, match="doesn't answer"):
            await sweep_machine(settings.model_copy(update={"containerd_address": dead}), print)

    assert list_mounts(state_dir) == []
    assert (code / "main").exists()


def test_sweep_goes_by_the_default_settings_if_those_of_the_machine_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swept: list[AgentSettings] = []

    async def sweep(settings: AgentSettings, _: object) -> None:
        swept.append(settings)

    (tmp_path / "agent.toml").write_text("state_dir = 5\n")
    monkeypatch.setattr(installation, "SETTINGS", tmp_path)
    monkeypatch.setattr(leftovers, "sweep_machine", sweep)
    monkeypatch.setattr("sys.argv", ["installation", "sweep"])

    installation.main()

    assert [settings.state_dir for settings in swept] == [Path("/var/lib/fargate-agent")]
    assert "state_dir" in capsys.readouterr().out


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
