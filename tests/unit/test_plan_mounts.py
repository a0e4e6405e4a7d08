"""Where containers see volumes: whose mount wins, and what can't be one."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import MountPlan, plan_task
from tests.messages import container_json, site, task_message

VOLUMES = [{"name": "v"}, {"name": "w"}]


def mounts_of(*containers: dict[str, Any]) -> list[tuple[MountPlan, ...]]:
    message = task_message(*containers, volumes=VOLUMES)
    return [container.mounts for container in plan_task(message, site(Path("/state"))).containers]


def point(path: str, volume: str = "v", **more: Any) -> dict[str, Any]:
    return {"sourceVolume": volume, "containerPath": path, **more}


def seen(mounts: tuple[MountPlan, ...]) -> list[tuple[str, str, bool, str]]:
    return [(one.destination, one.volume, one.read_only, one.taken_from) for one in mounts]


def test_path_is_written_in_one_way() -> None:
    (mounts,) = mounts_of(container_json(mountPoints=[point("//data/./sub/")]))

    assert [mount.destination for mount in mounts] == ["/data/sub"]


def test_own_mount_wins_over_one_that_is_taken_over() -> None:
    _, mounts = mounts_of(
        container_json("a", mountPoints=[point("/x"), point("/y", readOnly=True)]),
        container_json(
            "b", mountPoints=[point("/x/", "w")], volumesFrom=[{"sourceContainer": "a"}]
        ),
    )

    assert seen(mounts) == [("/x", "w", False, ""), ("/y", "v", True, "a")]


def test_own_tmpfs_wins_over_a_mount_that_is_taken_over() -> None:
    _, mounts = mounts_of(
        container_json("a", mountPoints=[point("/x")]),
        container_json(
            "b",
            linuxParameters={"tmpfs": [{"containerPath": "/x/", "size": 1}]},
            volumesFrom=[{"sourceContainer": "a"}],
        ),
    )

    assert seen(mounts) == []


def test_of_several_containers_the_last_one_wins_through_a_chain() -> None:
    *_, mounts = mounts_of(
        container_json("a", mountPoints=[point("/x")]),
        container_json("b", volumesFrom=[{"sourceContainer": "a", "readOnly": True}]),
        container_json("c", mountPoints=[point("/x", "w"), point("/z", "w")]),
        container_json("d", volumesFrom=[{"sourceContainer": "c"}, {"sourceContainer": "b"}]),
    )

    assert seen(mounts) == [("/x", "v", True, "b"), ("/z", "w", False, "c")]


@pytest.mark.parametrize(
    ("container", "fault"),
    [
        pytest.param({"mountPoints": [point("data")]}, "is not absolute", id="relative"),
        pytest.param({"mountPoints": [point("/a/../b")]}, r"has a part '\.\.'", id="upwards"),
        pytest.param({"mountPoints": [point("/")]}, "is the root directory", id="root"),
        pytest.param({"mountPoints": [point("/a\0b")]}, "has a NUL", id="NUL"),
        pytest.param(
            {"mountPoints": [point("/a"), point("/a/", "w")]}, "two mounts at /a", id="twice"
        ),
        pytest.param(
            {
                "mountPoints": [point("/a")],
                "linuxParameters": {"tmpfs": [{"containerPath": "//a", "size": 1}]},
            },
            "two mounts at /a",
            id="tmpfs at a volume",
        ),
        pytest.param({"mountPoints": [point("/a", "x")]}, "unknown volume 'x'", id="unknown"),
    ],
)
def test_mount_that_can_not_be_is_refused(container: dict[str, Any], fault: str) -> None:
    with pytest.raises(ResourceInitializationError, match=f"container 'web': .*{fault}"):
        mounts_of(container_json(**container))


@pytest.mark.parametrize("name", ["../v", "..", "a/b", "", "a" * 256, "v\n"])
def test_volume_with_a_name_that_leads_elsewhere_is_no_message(name: str) -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        task_message(container_json(), volumes=[{"name": name}])


@pytest.mark.parametrize("path", ["code", "/srv/../etc"])
def test_path_of_the_machine_that_leads_elsewhere_is_refused(path: str) -> None:
    message = task_message(container_json(), volumes=[{"name": "v", "host": {"sourcePath": path}}])

    with pytest.raises(ResourceInitializationError, match=r"volume 'v': host\.sourcePath"):
        plan_task(message, site(Path("/state")))


def test_two_volumes_of_one_name_are_refused() -> None:
    message = task_message(container_json(), volumes=[{"name": "v"}, {"name": "v"}])

    with pytest.raises(ResourceInitializationError, match="two volumes of the task have the same"):
        plan_task(message, site(Path("/state")))
