"""Which cgroup driver a host takes, and which one a task has."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.runtime.cgroup import Cgroups
from fargate_agent.runtime.cgroupdriver import (
    CgroupDriverError,
    CgroupDriverName,
    find_obstacle,
    plan_cgroup_drivers,
)

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def unified(tmp_path: Path) -> Cgroups:
    return Cgroups(trees=(tmp_path,), controllers={}, unified=True)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The root directory of a host with systemd and a system bus."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "run/dbus").mkdir()
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tmp_path / "run/dbus/system_bus_socket"))
        yield tmp_path


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (None, ["systemd", "cgroupfs"]),
        ("systemd", ["systemd", "cgroupfs"]),
        ("cgroupfs", ["cgroupfs", "systemd"]),
    ],
)
def test_a_systemd_host_has_both_drivers_and_the_setting_says_which_is_first(
    unified: Cgroups, wanted: CgroupDriverName | None, names: list[str]
) -> None:
    drivers = plan_cgroup_drivers(wanted, unified, None)

    assert [driver.name for driver in drivers.drivers] == names
    assert str(drivers) == f"cgroup v2, driver {names[0]}"


@pytest.mark.parametrize("wanted", [None, "cgroupfs"])
def test_other_hosts_have_one(unified: Cgroups, wanted: CgroupDriverName | None) -> None:
    drivers = plan_cgroup_drivers(wanted, unified, "no")

    assert [driver.name for driver in drivers.drivers] == ["cgroupfs"]


def test_systemd_that_can_not_be_had_is_refused_with_the_reason(unified: Cgroups) -> None:
    with pytest.raises(CgroupDriverError, match="cgroup_driver is 'systemd', but it is Tuesday"):
        plan_cgroup_drivers("systemd", unified, "it is Tuesday")


def test_a_host_with_systemd_and_v2_has_no_obstacle(unified: Cgroups, root: Path) -> None:
    assert find_obstacle(unified, root) is None


def test_obstacles_are_named(unified: Cgroups, root: Path) -> None:
    v1 = Cgroups(trees=(root,), controllers={}, unified=False)
    assert find_obstacle(v1, root) == "this host has cgroup v1"

    (root / "run/dbus/system_bus_socket").unlink()
    assert find_obstacle(unified, root) == (
        "this host has no system bus at /run/dbus/system_bus_socket"
    )

    (root / "run/systemd/system").rmdir()
    assert find_obstacle(unified, root) == "systemd doesn't run on this host"


@pytest.mark.parametrize(
    ("made", "has"),
    [
        pytest.param(f"ecs/{ID}", "cgroupfs", id="the other one's"),
        pytest.param(f"ecstasks.slice/ecstasks-{ID}.slice", "systemd", id="its own"),
        pytest.param("elsewhere", "systemd", id="none yet"),
    ],
)
@pytest.mark.parametrize("path", [f"/ecs/{ID}", f"/ecs/{ID}/{ID}-7"])
def test_a_task_has_the_driver_that_made_its_group(
    unified: Cgroups, tmp_path: Path, made: str, has: str, path: str
) -> None:
    (tmp_path / made).mkdir(parents=True)

    assert plan_cgroup_drivers("systemd", unified, None).of(path).name == has


def test_a_group_of_the_other_driver_is_removed(unified: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "ecs" / ID / f"{ID}-7").mkdir(parents=True)

    plan_cgroup_drivers(None, unified, "no").remove(f"/ecs/{ID}", 1)

    assert not (tmp_path / "ecs").exists()
