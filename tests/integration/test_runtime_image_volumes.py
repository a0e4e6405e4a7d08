"""What an image says of volumes, seen from inside containers of it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fargate_agent.drivers import ImageConfig
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.plan import TaskPlan
from fargate_agent.runtime import image_volumes, volume_fill
from fargate_agent.runtime.image_volumes import ImageVolumes
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

MOUNT = {"mountPoints": [{"sourceVolume": "v", "containerPath": "/data"}]}
VOLUMES = {"volumes": [{"name": "v"}]}
LOOK = "busybox stat -c '%a %u:%g' /data; cat /data/seed"
SEEN = "750 1000:1001\nseed\n"


def fill_data(upper: Path, _: int = 0) -> None:
    """Make the directory that the tests declare a volume."""
    data = upper / "data"
    data.mkdir()
    (data / "seed").write_text("seed\n")
    (data / "sub").mkdir()
    (data / "sub" / "file").write_text("below\n")
    os.chown(data / "seed", 1000, 1001)
    os.chown(data, 1000, 1001)
    data.chmod(0o750)


@pytest.fixture
async def image(bench: Bench) -> Bench:
    """A bench whose image has something at its VOLUME."""
    await bench.stack(1, fill_data)
    bench.config = ImageConfig(command=("sh",), volumes=("/data/",))
    return bench


async def test_fresh_volume_starts_with_what_the_image_has_there(image: Bench) -> None:
    task = image.plan(
        {
            "command": ["sh", "-c", f"exec 2>&1; {LOOK}; echo new >/data/new"],
            "user": "web",
            **MOUNT,
        },
        {
            "name": "other",
            "command": ["sh", "-c", "cat /elsewhere/seed /elsewhere/sub/file"],
            "mountPoints": [{"sourceVolume": "v", "containerPath": "/elsewhere"}],
        },
        **VOLUMES,
    )
    await image.begin_planned(task)
    await image.runtime.wait(task.containers[0])
    other = await image.create(task, task.containers[1])
    await image.runtime.start(task, other)
    await image.runtime.wait(other)

    assert image.output_file(other).read_text() == "seed\nbelow\n"
    assert (await image.finish(task)).output == SEEN


async def test_empty_named_volume_is_filled_once_for_all_tasks(image: Bench) -> None:
    named = {"scope": "shared", "autoprovision": True, "driver": "local"}
    volumes = {"volumes": [{"name": "v", "dockerVolumeConfiguration": named}]}

    first = await image.run(f"{LOOK}; echo changed >/data/seed", volumes, **MOUNT)
    second = await image.run(f"{LOOK}; ls -A /data", volumes, **MOUNT)

    assert first.output == SEEN
    assert second.output == "750 1000:1001\nchanged\nseed\nsub\n"


async def test_named_volume_gets_no_copy_that_was_made_for_one_that_was_removed(
    image: Bench,
) -> None:
    named = {"scope": "shared", "autoprovision": True, "driver": "local"}
    volumes = {"volumes": [{"name": "v", "dockerVolumeConfiguration": named}]}
    task = image.plan({"command": ["sh", "-c", f"{LOOK}; ls -A /data"], **MOUNT}, **volumes)
    volume = task.volumes[0].source
    ready = volume.parent / ".image.volumes" / f"{volume_fill.make_key(str(volume))}.ready"
    ready.mkdir(parents=True)  # a crash before it was moved, then the volume was removed
    (ready / "old").touch()

    await image.begin_planned(task)

    assert (await image.finish(task)).output == f"{SEEN}seed\nsub\n"


@pytest.mark.parametrize(
    ("declared", "path"),
    [
        pytest.param(("/data/sub",), "/data", id="above"),
        pytest.param(("/other",), "/data", id="another"),
        pytest.param((), "/data", id="none"),
    ],
)
async def test_only_a_volume_at_the_very_path_is_filled(
    image: Bench, declared: tuple[str, ...], path: str
) -> None:
    image.config = ImageConfig(command=("sh",), volumes=declared)

    finished = await image.run(
        f"busybox stat -c '%a %u:%g' {path}; ls -A {path} | busybox grep -v sub",
        VOLUMES,
        mountPoints=[{"sourceVolume": "v", "containerPath": path}],
    )

    assert finished.output == "755 0:0\n"


async def test_volume_that_holds_something_is_left_as_it_is(image: Bench) -> None:
    task = image.plan({"command": ["sh", "-c", "ls -A /data"], **MOUNT}, **VOLUMES)
    await image.prepare(task)
    (task.volumes[0].source / "mine").touch()

    await image.runtime.start(task, await image.create(task))

    assert (await image.finish(task)).output == "mine\n"


async def test_copy_that_a_crash_cut_off_is_repeated(image: Bench) -> None:
    task = image.plan({"command": ["sh", "-c", LOOK], **MOUNT}, **VOLUMES)
    await image.prepare(task)
    key = volume_fill.make_key(str(task.volumes[0].source))
    half = image_volumes._staging(task) / f"{key}.new"
    half.mkdir(parents=True)
    (half / "seed").write_text("half of")

    await image.runtime.start(task, await image.create(task))

    assert list(image_volumes._staging(task).iterdir()) == []
    assert (await image.finish(task)).output == SEEN


async def test_copy_that_was_whole_is_gone_on_with(image: Bench) -> None:
    task = image.plan({"command": ["sh", "-c", f"{LOOK}; ls /data"], **MOUNT}, **VOLUMES)
    await image.prepare(task)
    volume = task.volumes[0].source
    staging = image_volumes._staging(task)
    ready = staging / f"{volume_fill.make_key(str(volume))}.ready"
    staging.mkdir(parents=True)
    fill_data(staging)
    (staging / "data").rename(ready)
    (ready / "seed").rename(volume / "seed")

    await image.runtime.start(task, await image.create(task))

    assert list(staging.iterdir()) == []
    assert (await image.finish(task)).output == f"{SEEN}seed\nsub\n"


async def test_of_two_containers_at_once_one_copies_and_the_other_waits(
    image: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = image.plan(
        {"command": ["sh", "-c", LOOK], **MOUNT},
        {"name": "two", "command": ["sh", "-c", LOOK], **MOUNT},
        **VOLUMES,
    )
    await image.prepare(task)
    copies: list[str] = []
    copy = volume_fill._copy_one

    def count(fill: volume_fill.Fill, *rest: object) -> None:
        copies.append(fill.path)
        copy(fill, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(volume_fill, "_copy_one", count)

    async def run(number: int) -> str:
        container = await image.create(task, task.containers[number])
        await image.runtime.start(task, container)
        await image.runtime.wait(container)
        return image.output_file(container).read_text()

    async with asyncio.TaskGroup() as group:
        jobs = [group.create_task(run(number)) for number in range(2)]

    assert [job.result() for job in jobs] == [SEEN, SEEN]
    assert copies == ["/data"]


async def test_path_without_a_mount_is_a_volume_of_its_own(image: Bench) -> None:
    finished = await image.run(
        f"{LOOK}; echo mine >/data/mine && cat /data/mine; echo no >/no || echo read-only",
        readonlyRootFilesystem=True,
    )

    assert finished.output.startswith(f"{SEEN}mine\n")
    assert finished.output.endswith("read-only\n")


async def test_volume_of_its_own_that_a_crash_left_without_its_mode_gets_it(bench: Bench) -> None:
    bench.config = ImageConfig(command=("sh",), volumes=("/absent",))
    task = bench.plan({"command": ["sh", "-c", "busybox stat -c %a /absent"]})
    await bench.prepare(task)
    volume = image_volumes._place(task, task.containers[0].name, "/absent")
    volume.mkdir(mode=0o700, parents=True)

    await bench.runtime.start(task, await bench.create(task))

    assert (await bench.finish(task)).output == "755\n"


async def test_volume_of_its_own_is_there_after_a_restart(image: Bench) -> None:
    task = image.plan({"command": ["sh", "-c", "echo run >>/data/runs; cat /data/runs"]})
    (container,) = task.containers
    await image.begin_planned(task)
    await image.runtime.wait(container)

    await image.runtime.restart(task, container, image.log_uri(container))
    await image.runtime.start(task, container)

    assert (await image.finish(task)).output == "run\nrun\nrun\n"


async def test_volumes_of_an_image_are_taken_over_through_a_chain(image: Bench) -> None:
    image.config = ImageConfig(command=("sh",), volumes=("/data", "/more"))
    first = {"name": "first", "command": ["sh", "-c", "echo 1 >/more/1; echo 1 >/data/1"]}
    second = {
        "name": "second",
        "command": ["sh", "-c", "echo 2 >/more/2 || echo refused"],
        "volumesFrom": [{"sourceContainer": "first", "readOnly": True}],
    }
    third = {
        "name": "third",
        "command": ["sh", "-c", "exec 2>&1; cat /more/1 /data/1 /data/seed; echo 3 >/more/3"],
        "volumesFrom": [{"sourceContainer": "second"}],
        "mountPoints": [{"sourceVolume": "v", "containerPath": "/data"}],
    }
    task = image.plan(first, second, third, **VOLUMES)
    await image.prepare(task)

    outputs = []
    for container in task.containers:
        await image.create(task, container)
        await image.runtime.start(task, container)
        await image.runtime.wait(container)
        outputs.append(image.output_file(container).read_text())

    assert "refused" in outputs[1]
    assert "1\ncat: can't open '/data/1'" in outputs[2]
    assert "seed" in outputs[2]
    assert "Read-only file system" in outputs[2]


@pytest.mark.parametrize(
    ("fill", "declared", "seen"),
    [
        pytest.param(lambda data: None, "/data", "755 0:0", id="absent"),
        pytest.param(Path.mkdir, "/data", "755 0:0", id="empty"),
        pytest.param(
            lambda data: data.symlink_to("/etc/../../../../real"), "/data", "755 0:0", id="link"
        ),
        pytest.param(lambda data: data.symlink_to("data"), "/other", "755 0:0", id="other"),
    ],
)
async def test_what_is_no_directory_of_files_makes_an_empty_volume(
    bench: Bench, fill: Callable[[Path], None], declared: str, seen: str
) -> None:
    await bench.stack(1, lambda upper, _: fill(upper / "data"))
    bench.config = ImageConfig(command=("sh",), volumes=(declared,))

    finished = await bench.run(f"busybox stat -L -c '%a %u:%g' {declared}; ls -A {declared}")

    assert finished.output == f"{seen}\n"


async def test_links_of_the_image_lead_to_nothing_of_the_host(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret").touch()
    await bench.stack(1, lambda upper, _: (upper / "data").symlink_to(tmp_path / "host"))
    bench.config = ImageConfig(command=("sh",), volumes=("/data",))
    task = bench.plan({"command": ["sh", "-c", "ls -A /data"], **MOUNT}, **VOLUMES)

    await bench.begin_planned(task)

    assert "secret" not in (await bench.finish(task)).output


async def test_root_directory_as_a_volume_is_refused(bench: Bench) -> None:
    bench.config = ImageConfig(command=("sh",), volumes=("/x/..",))
    task = bench.plan({})
    await bench.prepare(task)

    with pytest.raises(CannotCreateContainerError, match="declares VOLUME /, which can't be a"):
        await bench.create(task)


async def test_copy_takes_no_longer_than_it_may(
    image: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.runtime._groundwork._volumes = ImageVolumes(timeout_s=0.05)
    ended: list[bool] = []

    def copy_for_ever(*arguments: object) -> None:
        ended.append(arguments[-1].wait(30))  # type: ignore[attr-defined]

    monkeypatch.setattr(volume_fill, "_copy_one", copy_for_ever)
    task = image.plan({**MOUNT}, **VOLUMES)
    await image.prepare(task)

    with pytest.raises(CannotCreateContainerError, match=r"copy /data .*: not done after 0.05 s"):
        await image.create(task)

    assert ended == [True]
    assert list(image_volumes._staging(task).iterdir()) == []


async def mount_small(task: TaskPlan, options: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(task.storage)
    )
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("options", "what"),
    [
        pytest.param("size=256k", "no space is left", id="space"),
        pytest.param("nr_inodes=20", "no inodes are left", id="inodes"),
    ],
)
async def test_image_that_has_no_room_in_the_volume_is_refused_and_leaves_nothing(
    bench: Bench, options: str, what: str
) -> None:
    def fill(upper: Path, _: int) -> None:
        (upper / "data").mkdir()
        (upper / "data" / "large").write_bytes(b"x" * (1 << 20))
        for number in range(30):
            (upper / "data" / str(number)).touch()

    await bench.stack(1, fill)
    bench.config = ImageConfig(command=("sh",), volumes=("/data",))
    task = bench.plan({**MOUNT}, **VOLUMES)
    await bench.storage.ensure(task)
    await mount_small(task, options)
    try:
        await bench.prepare(task)
        with pytest.raises(
            CannotCreateContainerError, match=f"unable to copy /data.* into volume 'v': {what}"
        ):
            await bench.create(task)

        assert list(task.volumes[0].source.iterdir()) == []
        assert list(image_volumes._staging(task).iterdir()) == []
        await bench.runtime.stop(task.containers[0])
    finally:
        process = await asyncio.create_subprocess_exec("umount", str(task.storage))
        assert await process.wait() == 0
