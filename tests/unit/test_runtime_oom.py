"""Whether the kernel has killed a process of a container's present run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.containers import ContainerRecord, Containers
from fargate_agent.plan import ContainerPlan, plan_task
from fargate_agent.runtime.cgroup import Cgroups
from fargate_agent.runtime.cgroupdriver import CgroupDrivers
from fargate_agent.runtime.oom import has_oom_kills, note_oom_kills
from fargate_agent.runtime.slices import Slices
from tests.messages import container_json, site, task_message


class FakeContainers(Containers):
    """One record, which counts how often it is asked for."""

    def __init__(self, id_: str) -> None:
        self.record = ContainerRecord(id=id_, image="web:1", spec=b"{}", labels={"team": "blue"})
        self.asked = 0

    async def get(self, id_: str) -> ContainerRecord:
        self.asked += 1
        return self.record

    async def set_labels(self, id_: str, labels: Mapping[str, str]) -> None:
        self.record = replace(self.record, labels=labels)


@pytest.fixture
def container(tmp_path: Path) -> ContainerPlan:
    return plan_task(task_message(container_json()), site(tmp_path)).containers[0]


@pytest.fixture
def containers(container: ContainerPlan) -> FakeContainers:
    return FakeContainers(container.id)


@pytest.fixture
async def containerd(containers: FakeContainers, tmp_path: Path) -> Containerd:
    client = Containerd(tmp_path / "no.sock", "test")
    client.containers = containers
    return client


@pytest.fixture
def slices(tmp_path: Path) -> Slices:
    return Slices(tree=tmp_path)


@pytest.fixture
def drivers(slices: Slices, tmp_path: Path) -> CgroupDrivers:
    cgroups = Cgroups(trees=(tmp_path,), controllers={"memory": tmp_path}, unified=True)
    return CgroupDrivers(cgroups=cgroups, drivers=(slices, cgroups))


def count_kills(slices: Slices, container: ContainerPlan, count: int) -> None:
    group = slices.tree / slices.locate(container.cgroup).lstrip("/")
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.events").write_text(f"oom 9\noom_kill {count}\n")


async def test_kills_of_the_run_before_do_not_count(
    containerd: Containerd, drivers: CgroupDrivers, slices: Slices, container: ContainerPlan
) -> None:
    count_kills(slices, container, 2)
    first = await has_oom_kills(containerd, drivers, container)

    await note_oom_kills(containerd, drivers, container)
    second = await has_oom_kills(containerd, drivers, container)
    count_kills(slices, container, 3)
    third = await has_oom_kills(containerd, drivers, container)

    assert (first, second, third) == (True, False, True)


async def test_other_labels_stay(
    containerd: Containerd,
    containers: FakeContainers,
    drivers: CgroupDrivers,
    slices: Slices,
    container: ContainerPlan,
) -> None:
    count_kills(slices, container, 2)

    await note_oom_kills(containerd, drivers, container)

    assert containers.record.labels["team"] == "blue"


async def test_a_group_that_begins_anew_counts_anew(
    containerd: Containerd, drivers: CgroupDrivers, slices: Slices, container: ContainerPlan
) -> None:
    count_kills(slices, container, 2)
    await note_oom_kills(containerd, drivers, container)
    count_kills(slices, container, 0)
    await note_oom_kills(containerd, drivers, container)
    count_kills(slices, container, 1)

    assert await has_oom_kills(containerd, drivers, container)


async def test_nobody_is_asked_when_nothing_was_killed(
    containerd: Containerd,
    containers: FakeContainers,
    drivers: CgroupDrivers,
    container: ContainerPlan,
) -> None:
    assert not await has_oom_kills(containerd, drivers, container)
    assert containers.asked == 0


@pytest.mark.parametrize("driver", ["systemd", "cgroupfs"])
def test_all_processes_of_a_container_are_found(
    drivers: CgroupDrivers, tmp_path: Path, container: ContainerPlan, driver: str
) -> None:
    (one,) = (driver_ for driver_ in drivers.drivers if driver_.name == driver)
    group = tmp_path / one.locate(container.cgroup).lstrip("/")
    (group / "inner").mkdir(parents=True)
    (group / "cgroup.procs").write_text("12\n13\n")
    (group / "inner/cgroup.procs").write_text("14\n")

    assert one.find_processes(container.cgroup) == {12, 13, 14}
    assert one.find_processes(f"{container.cgroup}-gone") == frozenset()
