"""What every `VolumeDriver` promises. A kind is one more line in `KINDS`.

A line has a function that makes the driver in a directory of its own, and one that changes the plan
of the volume as the kind needs it.
"""

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fargate_agent.drivers import VolumeDriver
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.plan import (
    EbsPlan,
    EfsPlan,
    HostPaths,
    PersistentPlan,
    TaskPlan,
    VolumePlan,
    plan_task,
)
from fargate_agent.volumes.ebs import EbsVolumes
from fargate_agent.volumes.efs import EfsVolumes
from fargate_agent.volumes.host import HostVolumes
from fargate_agent.volumes.persistent import PersistentVolumes
from fargate_agent.volumes.room import Room
from fargate_agent.volumes.scratch import ScratchVolumes
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.messages import container_json, site, task_arn, task_message


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a driver is made, and a volume for it."""

    make: Callable[[Path], VolumeDriver]
    kind: VolumeKind
    change: Callable[[VolumePlan, Path], VolumePlan] = lambda volume, _: volume
    """Returns the plan with what the kind needs, below a directory that is there."""
    outlives: bool = False
    """What is in it is there for the next task."""


def _make_efs(directory: Path) -> VolumeDriver:
    async def resolve(_task: TaskPlan, host: str) -> list[str]:
        raise OSError(f"lookup {host}: no such host")

    return EfsVolumes(directory / "tasks", resolve, socket_in_netns)


def _on_efs(volume: VolumePlan, directory: Path) -> VolumePlan:
    """Let a directory stand for the file system, as without AWS."""
    efs = EfsPlan(
        file_system_id="fs-01234567", path="/", directory=directory / "efs/fs", is_made=True
    )
    source = directory / "mounted" / volume.source.parent.parent.parent.name / volume.name
    return replace(volume, source=source, efs=efs)


def _configure_ebs(volume: VolumePlan, directory: Path) -> VolumePlan:
    ebs = EbsPlan(
        volume_id="vol-0123456789abcdef0",
        size_gib=1,
        snapshot_id=None,
        filesystem_type="ext4",
        delete_on_termination=True,
    )
    task = directory / "tasks" / uuid.uuid4().hex  # of any task: nothing else is in it
    task.mkdir(parents=True)
    return replace(volume, source=task / "ebs" / "v", ebs=ebs)


def _on_the_host(volume: VolumePlan, directory: Path) -> VolumePlan:
    source = directory / "bound" / volume.source.parent.parent.parent.name / volume.name
    source.parent.parent.mkdir(exist_ok=True)
    return replace(volume, source=source, host_path=directory / "host")


def _make_host(directory: Path) -> VolumeDriver:
    (directory / "host").mkdir(mode=0o755)
    (directory / "host").chmod(0o755)
    return HostVolumes(HostPaths(allowed=(directory / "host",)))


KINDS = [
    pytest.param(
        Kind(
            make=lambda directory: EbsVolumes(
                directory / "ebs", {}, Room(directory / "tasks", "sparse", None)
            ),
            kind=VolumeKind.EBS,
            change=_configure_ebs,
        ),
        id="ebs",
        marks=pytest.mark.root,
    ),
    pytest.param(
        Kind(
            make=lambda _: PersistentVolumes(),
            kind=VolumeKind.PERSISTENT,
            change=lambda volume, directory: replace(
                volume,
                source=directory / "volumes" / "v",
                persistent=PersistentPlan(autoprovision=True),
            ),
            outlives=True,
        ),
        id="persistent",
    ),
    pytest.param(Kind(make=lambda _: ScratchVolumes(), kind=VolumeKind.SCRATCH), id="scratch"),
    pytest.param(
        Kind(make=_make_efs, kind=VolumeKind.EFS, change=_on_efs, outlives=True),
        id="efs",
        marks=pytest.mark.root,
    ),
    pytest.param(
        Kind(make=_make_host, kind=VolumeKind.HOST, change=_on_the_host, outlives=True),
        id="host",
        marks=pytest.mark.root,
    ),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def driver(kind: Kind, tmp_path: Path) -> AsyncIterator[VolumeDriver]:
    async with kind.make(tmp_path) as driver:
        yield driver


@pytest.fixture
def plan(kind: Kind, tmp_path: Path) -> Callable[[], tuple[TaskPlan, VolumePlan]]:
    def plan() -> tuple[TaskPlan, VolumePlan]:
        """Plan a task with one volume; its storage is a plain directory."""
        points = [{"sourceVolume": "v", "containerPath": "/v", "readOnly": False}]
        message = task_message(
            container_json(mountPoints=points),
            arn=task_arn(uuid.uuid4().hex),
            volumes=[{"name": "v"}],
        )
        task = plan_task(message, site(tmp_path))
        task.storage.mkdir(parents=True, mode=0o700)
        volume = kind.change(replace(task.volumes[0], kind=kind.kind), tmp_path)
        return replace(task, volumes=(volume,)), volume

    return plan


Plan = Callable[[], tuple[TaskPlan, VolumePlan]]


async def test_ensure_may_be_repeated_and_leaves_what_was_written(
    driver: VolumeDriver, plan: Plan
) -> None:
    task, volume = plan()
    await driver.ensure(task, volume)
    (volume.source / "kept").write_text("x")

    await driver.ensure(task, volume)

    assert (volume.source / "kept").read_text() == "x"
    await driver.release(task, volume)


async def test_a_volume_is_owned_by_root_and_everybody_may_look_into_it(
    driver: VolumeDriver, plan: Plan
) -> None:
    task, volume = plan()
    await driver.ensure(task, volume)
    found = volume.source.stat()
    assert (found.st_uid, found.st_gid, oct(found.st_mode)) == (0, 0, "0o40755")
    await driver.release(task, volume)


async def test_release_may_be_repeated(driver: VolumeDriver, plan: Plan) -> None:
    task, volume = plan()
    await driver.ensure(task, volume)
    await driver.release(task, volume)
    await driver.release(task, volume)


async def test_release_of_what_never_was_succeeds(driver: VolumeDriver, plan: Plan) -> None:
    task, volume = plan()
    await driver.release(task, volume)
    assert not volume.source.exists()


async def test_the_next_task_finds_what_outlives_a_task_and_nothing_else(
    driver: VolumeDriver, plan: Plan, kind: Kind
) -> None:
    first, volume = plan()
    await driver.ensure(first, volume)
    (volume.source / "kept").write_text("x")
    await driver.release(first, volume)

    second, volume = plan()
    await driver.ensure(second, volume)

    assert (volume.source / "kept").exists() == kind.outlives
    await driver.release(second, volume)


async def test_two_tasks_have_volumes_of_the_same_name(
    driver: VolumeDriver, plan: Plan, kind: Kind
) -> None:
    if kind.outlives:
        pytest.skip("one task at a time has it")
    first, one = plan()
    second, other = plan()
    await driver.ensure(first, one)
    await driver.ensure(second, other)
    (one.source / "mine").touch()
    assert not (other.source / "mine").exists()
    await driver.release(first, one)
    assert other.source.is_dir()
    await driver.release(second, other)
