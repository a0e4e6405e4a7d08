"""Named volumes that outlive tasks: who gets one, and what has its name already."""

import json
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.controlplane.agents.needs import find_missing, find_needs
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.rules.volumes import MAX_SHARED_NAME_CHARS
from fargate_agent.controlplane.state.model import ContainerInstance
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.volumes.persistent import PersistentVolumes
from fargate_agent.wire.messages import TaskMessage
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.fixtures.ecs import APP, FARGATE
from tests.launches import register
from tests.messages import site, task_message

SHARED = {"scope": "shared", "autoprovision": True}


def plan(directory: Path, **configuration: Any) -> TaskPlan:
    volume = {"name": "data", "dockerVolumeConfiguration": configuration}
    return plan_task(task_message(volumes=[volume]), site(directory))


async def ensure(driver: PersistentVolumes, task: TaskPlan) -> Path:
    await driver.ensure(task, task.volumes[0])
    return task.volumes[0].source


def definition(**configuration: Any) -> dict[str, Any]:
    mounts = [{"sourceVolume": "data", "containerPath": "/data"}]
    return {
        **FARGATE,
        "networkMode": "bridge",
        "requiresCompatibilities": ["EC2"],
        "containerDefinitions": [{**APP, "mountPoints": mounts}],
        "volumes": [{"name": "data", "dockerVolumeConfiguration": configuration}],
    }


@pytest.mark.parametrize(
    ("configuration", "kind"),
    [
        pytest.param({}, VolumeKind.SCRATCH, id="unsaid"),
        pytest.param({"scope": "task", "driver": "local"}, VolumeKind.SCRATCH, id="task"),
        pytest.param({"scope": "shared"}, VolumeKind.PERSISTENT, id="shared"),
    ],
)
def test_volume_outlives_the_task_if_it_is_shared(
    tmp_path: Path, configuration: dict[str, Any], kind: VolumeKind
) -> None:
    (volume,) = plan(tmp_path, **configuration).volumes

    assert volume.kind is kind
    assert (volume.source == tmp_path / "volumes" / "data") == (kind is VolumeKind.PERSISTENT)


async def test_volume_that_is_not_there_is_made_only_if_that_is_asked_for(tmp_path: Path) -> None:
    driver = PersistentVolumes()

    with pytest.raises(ResourceInitializationError, match="'data' doesn't exist on this machine"):
        await ensure(driver, plan(tmp_path, scope="shared"))
    made = await ensure(driver, plan(tmp_path, **SHARED))
    found = await ensure(driver, plan(tmp_path, scope="shared"))

    assert made == found
    assert (made.stat().st_mode & 0o7777, made.parent.stat().st_mode & 0o7777) == (0o755, 0o700)


async def test_volume_stays_as_it_is_when_it_is_asked_for_again(tmp_path: Path) -> None:
    driver, task = PersistentVolumes(), plan(tmp_path, **SHARED)
    made = await ensure(driver, task)
    made.chmod(0o1777)
    (made / "file").write_text("kept")

    await driver.release(task, task.volumes[0])
    await ensure(driver, task)

    assert (made / "file").read_text() == "kept"
    assert made.stat().st_mode & 0o7777 == 0o1777


async def test_volume_half_made_by_an_agent_that_was_killed_is_finished(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / ".data").mkdir(mode=0o700)

    made = await ensure(PersistentVolumes(), plan(tmp_path, **SHARED))

    assert made.stat().st_mode & 0o7777 == 0o755
    assert not made.with_name(".data").exists()


async def test_labels_stand_beside_the_volume(tmp_path: Path) -> None:
    made = await ensure(PersistentVolumes(), plan(tmp_path, **SHARED, labels={"team": "a"}))

    assert json.loads(made.with_name("data.json").read_text()) == {"labels": {"team": "a"}}


@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
async def test_what_has_the_name_of_a_volume_and_is_none_is_refused(
    tmp_path: Path, kind: str
) -> None:
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "volumes" / "data"
    place.parent.mkdir()
    if kind == "file":
        place.write_text("kept")
    else:
        place.symlink_to(elsewhere)
    if kind == "link":
        elsewhere.mkdir()

    with pytest.raises(ResourceInitializationError, match="isn't a directory"):
        await ensure(PersistentVolumes(), plan(tmp_path, **SHARED))

    assert place.is_symlink() or place.read_text() == "kept"
    assert elsewhere.exists() == (kind == "link")


async def test_directory_of_volumes_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "volumes").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ResourceInitializationError, match="unable to make the volume 'data'"):
        await ensure(PersistentVolumes(), plan(tmp_path, **SHARED))

    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["../data", "a/b", "..", ".", "", ".data"])
def test_name_of_a_volume_is_no_path(name: str) -> None:
    volume = {"name": name, "dockerVolumeConfiguration": SHARED}

    with pytest.raises(ValueError, match=r"volumes\.0\.name"):
        task_message(volumes=[volume])


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"driver": "rexray"}, "dockerVolumeConfiguration.driver rexray"),
        ({"driverOpts": {"type": "nfs"}}, "dockerVolumeConfiguration.driverOpts"),
    ],
)
def test_other_drivers_and_their_options_are_refused_by_name(
    tmp_path: Path, configuration: dict[str, Any], named: str
) -> None:
    with pytest.raises(ResourceInitializationError, match=f"volume 'data': {named}"):
        plan(tmp_path, **SHARED, **configuration)


def test_task_is_for_agents_that_have_the_driver() -> None:
    asked = register(definition(driver="local")).document
    needs = find_needs(asked, asked["containerDefinitions"])
    names = [
        {"name": "ecs.capability.task-eni"},
        {"name": "ecs.cpu-architecture", "value": "x86_64"},
    ]
    local = {"name": "ecs.capability.docker-plugin.local"}
    before = ContainerInstance(document={"attributes": names})
    after = ContainerInstance(document={"attributes": [*names, local]})

    assert [need.what for need in find_missing(before, needs)] == ["volume driver local"]
    assert find_missing(after, needs) == []
    assert [a.render() for a in PersistentVolumes().read_attributes(Path("/"))] == [local]


async def test_longest_name_of_a_shared_volume_can_be_made(tmp_path: Path) -> None:
    name = "v" * MAX_SHARED_NAME_CHARS
    asked = definition(**SHARED)
    asked["volumes"][0]["name"] = name
    asked["containerDefinitions"][0]["mountPoints"][0]["sourceVolume"] = name
    register(asked)
    volume = {"name": name, "dockerVolumeConfiguration": {**SHARED, "labels": {"a": "b"}}}

    made = await ensure(
        PersistentVolumes(), plan_task(task_message(volumes=[volume]), site(tmp_path))
    )

    assert {path.name for path in made.parent.iterdir()} == {name, f"{name}.json"}


def test_longer_name_of_a_shared_volume_is_refused() -> None:
    asked = definition(**SHARED)
    asked["volumes"][0]["name"] = "v" * (MAX_SHARED_NAME_CHARS + 1)

    with pytest.raises(ApiError, match="the scope shared has at most 240 characters"):
        register(asked)


def test_autoprovision_is_for_shared_volumes() -> None:
    with pytest.raises(ApiError, match="autoprovision is only for volumes of the scope shared"):
        register(definition(autoprovision=True))


def test_message_of_a_volume_is_read_as_the_definition_has_it() -> None:
    message = task_message(volumes=[{"name": "data", "dockerVolumeConfiguration": SHARED}])

    assert TaskMessage.model_validate(message.model_dump(by_alias=True)) == message
