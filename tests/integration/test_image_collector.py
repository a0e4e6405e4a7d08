"""Unused images are removed, by age and when the disk is full, in a real containerd."""

import asyncio
import os
import shutil
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.image import collector as module
from fargate_agent.image.collector import CleanupSettings, ImageCollector
from fargate_agent.image.disk import ImageDisk
from fargate_agent.image.store import PullBehavior
from fargate_agent.image.uses import turn_of
from fargate_agent.parallel import together
from tests.fixtures.busybox import SNAPSHOTTER
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import build_image, random_layer, write_layout
from tests.fixtures.pulls import Puller
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.unused_images import HOUR, START, Machine

pytestmark = pytest.mark.root


@pytest.fixture
def machine(containerd: Containerd) -> Machine:
    return Machine(containerd=containerd)


def full_names(names: Iterable[str]) -> list[str]:
    return [f"docker.io/library/{name}" for name in names]


async def test_what_no_task_has_used_for_an_hour_goes_the_oldest_first(machine: Machine) -> None:
    for n in range(7):
        await machine.add(f"old{n}:1", (n + 2) * HOUR)
    await machine.add("young:1", HOUR - timedelta(seconds=1))
    collector = machine.collector()

    first = await collector.clean_up()
    second = await collector.clean_up()

    assert first == full_names(f"old{n}:1" for n in (6, 5, 4, 3, 2))
    assert second == full_names(["old1:1", "old0:1"])
    assert await machine.names() == ["young:1"]


async def test_what_is_used_or_loaded_or_excluded_stays_however_old(machine: Machine) -> None:
    used = await machine.add("used:latest", 1000 * HOUR)
    await machine.add("excluded:latest", 1000 * HOUR)
    await machine.add("loaded:1", 1000 * HOUR, is_loaded=True)
    await machine.add("old:1", 1000 * HOUR)
    machine.users = {"used": [object()]}
    full = machine.collector(excluded=("excluded", "Not A Name"), disk_high_percent=1)

    await full.clean_up()
    machine.disk = lambda: _percent(99)
    await machine.collector(excluded=("excluded",)).look()

    assert await machine.names() == ["excluded:latest", "loaded:1", "used:latest"]
    assert used in full_names(await machine.names())


async def _percent(value: float) -> float:
    return value


async def test_the_last_use_outlives_the_agent(machine: Machine) -> None:
    name = await machine.add("web:1", 5 * HOUR)
    machine.users = {"web:1": [object()]}
    await machine.collector().look()
    assert await machine.used_at(name) == machine.now

    machine.wait(timedelta(minutes=59))
    machine.users = {}
    assert await machine.collector().clean_up() == []
    machine.wait(timedelta(minutes=2))
    assert await machine.collector().clean_up() == [name]


async def test_the_end_of_a_task_is_a_use(machine: Machine) -> None:
    name = await machine.add("web:1", 5 * HOUR)
    machine.users = {"web:1": [object()]}
    collector = machine.collector()
    await collector.look()
    machine.wait(timedelta(minutes=30))
    await collector.look()
    assert await machine.used_at(name) == START  # nothing is written while it goes on

    machine.users = {}
    await collector.look()

    assert await machine.used_at(name) == START + timedelta(minutes=30)


async def test_the_label_of_an_image_in_use_is_never_much_older_than_an_hour(
    machine: Machine,
) -> None:
    name = await machine.add("web:1", 5 * HOUR)
    machine.users = {"web:1": [object()]}
    collector = machine.collector()

    for _ in range(5):
        machine.wait(timedelta(minutes=40))
        await collector.look()
        assert machine.now - await machine.used_at(name) <= HOUR


async def test_a_start_is_noted_even_if_the_task_is_over_by_then(machine: Machine) -> None:
    name = await machine.add("web:1", 5 * HOUR)
    collector = machine.collector()
    collector.uses.note(name)
    collector.uses.note("docker.io/library/gone:1")

    await collector.look()

    assert await machine.used_at(name) == machine.now
    assert not collector.uses.news.is_set()


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400)])
async def test_images_keep_their_age_when_the_clock_is_set(
    machine: Machine, jump: timedelta
) -> None:
    old = await machine.add("old:1", timedelta(minutes=50))
    young = await machine.add("young:1", timedelta(minutes=5))
    collector = machine.collector()

    machine.now += jump
    machine.wait(timedelta(minutes=1))
    await collector.look()

    assert await collector.clean_up() == []
    assert machine.now - await machine.used_at(old) == timedelta(minutes=51)
    assert machine.now - await machine.used_at(young) == timedelta(minutes=6)
    machine.wait(timedelta(minutes=10))
    await collector.look()
    assert await collector.clean_up() == [old]


async def test_a_use_that_is_still_to_come_counts_as_now(machine: Machine) -> None:
    """As after a start of the machine with a clock that is yet to be set."""
    name = await machine.add("web:1", -100 * HOUR)

    await machine.collector().look()

    assert await machine.used_at(name) == machine.now


async def test_a_disk_above_the_high_mark_is_cleaned_to_the_low_one(machine: Machine) -> None:
    for n in range(4):
        await machine.add(f"web{n}:1", timedelta(minutes=n))

    async def measure() -> float:
        return 81 + 2 * len(await machine.names())

    machine.disk = measure
    collector = machine.collector(disk_high_percent=89, disk_low_percent=85)
    await collector.look()
    assert await machine.names() == ["web0:1"]  # 83 %

    await machine.add("web9:1", HOUR)
    await collector.look()
    assert await machine.names() == ["web0:1", "web9:1"]  # 85 %, which isn't above the high mark


async def test_a_full_disk_without_an_image_to_remove_is_told_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    await machine.add("loaded:1", HOUR, is_loaded=True)
    machine.disk = lambda: _percent(95)
    collector = machine.collector()

    await collector.look()
    await collector.look()

    assert caplog.text.count("95 % of the disk is in use, and no image is left") == 1


async def test_what_else_fills_a_disk_does_not_cost_every_new_image(machine: Machine) -> None:
    machine.disk = lambda: _percent(95)
    collector = machine.collector()
    left = []
    for name, later in (("old:1", timedelta()), ("new:1", timedelta()), ("new:1", HOUR)):
        await machine.add(name, timedelta())
        machine.wait(later)
        await collector.look()
        left.append(await machine.names())

    assert left == [[], ["new:1"], []]


async def test_the_mark_of_the_disk_can_be_turned_off(machine: Machine) -> None:
    await machine.add("web:1", 5 * HOUR)
    machine.disk = lambda: _percent(100)

    await machine.collector(disk_high_percent=100).look()

    assert await machine.names() == ["web:1"]


async def test_an_image_that_a_task_begins_to_use_meanwhile_stays(machine: Machine) -> None:
    """The task comes after the images were looked through, and before its image's turn."""
    for name in ("a:1", "b:1"):
        await machine.add(name, 5 * HOUR)
    collector = machine.collector()

    async with turn_of(machine.locks, "docker.io/library/b:1"):
        cleaning = asyncio.create_task(collector.clean_up())
        while await machine.names() != ["b:1"]:
            await asyncio.sleep(0.01)
        machine.users = {"b:1": [object()]}

    assert await cleaning == ["docker.io/library/a:1"]
    assert await machine.names() == ["b:1"]


async def test_a_start_waits_for_a_removal_and_pulls_again(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    """With `prefer-cached`, which would take the copy that is about to go."""
    name = fake_registry.add("web", "1", build_image())
    store = puller.store(behavior=PullBehavior.PREFER_CACHED)
    network = asyncio.Event()
    network.set()
    task = await puller.task()
    await store.ensure(name, task, puller.told.append, network)
    await puller.end(task)
    task = await puller.task()

    async with turn_of(puller.locks, name):
        starting = asyncio.create_task(store.ensure(name, task, puller.told.append, network))
        await asyncio.sleep(0)  # it has come to the lock
        await puller.containerd.images.delete(name)
    image = await starting

    snapshots = puller.containerd.snapshots(SNAPSHOTTER)
    assert await snapshots.exists(image.chain_id)


async def test_pulls_and_collections_at_once_leave_every_task_its_image(
    puller: Puller, fake_registry: FakeRegistry, containerd: Containerd
) -> None:
    """Each round the image is unused for a moment, and old at once."""
    shared = random_layer(50_000)
    names = [fake_registry.add("web", f"{n}", build_image([shared, random_layer()])) for n in "ab"]
    users: dict[str, list[Any]] = {}
    collector = ImageCollector(
        containerd,
        CleanupSettings(minimum_age_s=0),
        puller.locks,
        lambda: users,
        lambda: _percent(0),
    )
    removed = list[str]()
    is_over = asyncio.Event()

    async def use(name: str) -> None:
        store = puller.store(behavior=PullBehavior.PREFER_CACHED)
        network = asyncio.Event()
        network.set()
        for _ in range(6):
            task = await puller.task()
            users[name] = [task]
            image = await store.ensure(name, task, puller.told.append, network)
            assert await containerd.snapshots(SNAPSHOTTER).exists(image.chain_id)
            del users[name]
            await puller.end(task)

    async def use_all() -> None:
        await together(use(name) for name in names)
        is_over.set()

    async def collect() -> None:
        while not is_over.is_set():
            removed.extend(await collector.clean_up())
            await asyncio.sleep(0)

    await together([use_all(), collect()])

    assert removed


async def test_serving_removes_what_was_pulled_and_gives_the_disk_back(
    puller: Puller,
    fake_registry: FakeRegistry,
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was loaded stays. A round that fails doesn't end the service."""
    monkeypatch.setattr(module, "LOOK_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    name = fake_registry.add("web", "1", build_image([random_layer(2_000_000)]))
    loaded = "test.example/loaded:1"
    task = await puller.task()
    await puller.pull(name, task)
    await puller.end(task)
    await puller.admin.load(write_layout(tmp_path / "a.tar", {loaded: build_image()}))
    measured = []

    async def measure() -> float:
        measured.append(1)
        if len(measured) == 1:
            raise OSError(5, "Input/output error")
        return 0.0

    settings = CleanupSettings(interval_s=0.02, minimum_age_s=0)
    collector = ImageCollector(puller.containerd, settings, puller.locks, dict, measure)
    before_bytes = sum_blocks(private_containerd)
    serving = asyncio.create_task(collector.serve())
    try:
        async with asyncio.timeout(20):
            while [one.name for one in await puller.admin.list()] != [loaded]:
                await asyncio.sleep(0.01)
            # containerd takes the files away after the record
            while before_bytes - sum_blocks(private_containerd) < 3_900_000:
                await asyncio.sleep(0.01)
    finally:
        serving.cancel()


def sum_blocks(containerd: PrivateContainerd) -> int:
    root = containerd.directory / "root"
    return sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))


async def test_the_disk_is_that_of_containerd(
    containerd: Containerd, private_containerd: PrivateContainerd
) -> None:
    disk = ImageDisk(containerd, SNAPSHOTTER)
    root = private_containerd.directory / "root"

    measured = await disk.measure()

    usage = shutil.disk_usage(root)
    about = os.statvfs(root)
    assert abs(measured - 100 * usage.used / (usage.used + about.f_bavail * about.f_frsize)) < 1
