"""Root file systems of containers: where what they write lies, and what keeps the layers below."""

import os
import stat
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.processes import RuncOptions
from fargate_agent.containerd.types import Descriptor
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.image.manifest import MAX_LAYERS
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.views import render_key
from tests.fixtures.busybox import LAYER_TYPE, SNAPSHOTTER, busybox_layer
from tests.fixtures.runtime import LAYERS_LEASE, Bench, make_runtime

pytestmark = pytest.mark.root

IMAGE = "test.example/busybox:latest"

EXIT_WITH_EUID = bytes.fromhex(
    "7f454c4602010100000000000000000002003e0001000000"  # ELF, x86-64, one program header
    "7800400000000000400000000000000000000000000000000000000040003800"
    "0100000000000000"
    "010000000500000000000000000000000000400000000000"  # all of the file, to be executed
    "000040000000000088000000000000008800000000000000"
    "0010000000000000"
    "b86b0000000f05"  # mov eax, geteuid; syscall
    "89c7b83c0000000f05"  # mov edi, eax; mov eax, exit; syscall
)
"""A program whose exit code is its effective user. Source: elf(5), geteuid(2), _exit(2)."""

CAP_NET_RAW = 13
NET_RAW = struct.pack("<5I", 0x02000001, 1 << CAP_NET_RAW, 0, 0, 0)
"""`cap_net_raw=ep`. Source: linux/capability.h, `vfs_cap_data`, version 2."""

AT_SIGNAL = "trap '{script}; exit 0' TERM; echo ready; while :; do sleep 0.01; done"


async def collect_garbage(client: Containerd) -> None:
    await client.leases.ensure("collect-garbage", {})
    await client.leases.delete("collect-garbage", sync=True)


async def snapshots_of(bench: Bench) -> set[str]:
    return {one.key for one in await bench.containerd.snapshots(SNAPSHOTTER).list()}


async def remove_image(bench: Bench) -> None:
    """Remove the image of the bench, and have the garbage collector look at what is left."""
    await bench.containerd.images.delete(IMAGE, sync=True)
    await collect_garbage(bench.containerd)


async def test_what_a_container_writes_lies_in_the_ephemeral_volume_of_its_task(
    bench: Bench,
) -> None:
    script = "echo mine >/etc/own; busybox rm /bin/cat; echo ready; sleep 60"
    task = await bench.begin(script, stopTimeout=0)
    await bench.wait_for_output(task, "ready")
    (container,) = task.containers
    directory = task.storage / "c" / container.id

    assert (directory / "fs" / "etc" / "own").read_text() == "mine\n"
    assert (directory / "fs" / "bin" / "cat").is_char_device()  # a whiteout
    assert {one for one in await snapshots_of(bench) if container.id in one} == set()
    await bench.runtime.stop(container)
    await bench.release(task)
    assert await bench.traces(task) == []


async def test_containers_of_one_image_do_not_see_what_others_write(bench: Bench) -> None:
    task = bench.plan(
        {"name": "a", "command": ["sh", "-c", "echo >/from-a"]},
        {"name": "b", "command": ["sh", "-c", "ls /"]},
    )
    await bench.prepare(task)
    first, second = sorted(task.containers, key=lambda one: one.name)
    for container in (first, second):
        await bench.runtime.start(task, await bench.create(task, container))
        assert (await bench.runtime.wait(container)).code == 0

    assert "from-a" not in bench.output_file(second).read_text()


@pytest.mark.parametrize("layers", [1, 10])
async def test_container_keeps_all_files_of_an_image_that_is_removed(
    bench: Bench, layers: int
) -> None:
    await bench.stack(layers - 1, lambda upper, n: (upper / f"layer{n}").touch())
    script = "ls / | busybox grep -c ^layer; busybox ls -ld /tmp >/dev/null && id -un"
    task = await bench.begin(AT_SIGNAL.format(script=script))
    await bench.wait_for_output(task, "ready")
    (container,) = task.containers

    await bench.containerd.leases.delete(LAYERS_LEASE)
    await remove_image(bench)

    await bench.runtime.stop(container)
    assert bench.output_file(container).read_text().split() == ["ready", str(layers - 1), "root"]
    await bench.release(task)
    await collect_garbage(bench.containerd)
    assert await snapshots_of(bench) == set()


async def test_container_of_an_image_that_is_removed_is_restarted_with_its_files(
    bench: Bench,
) -> None:
    await bench.run("true")  # its lease kept the view, that of the next one doesn't
    task = await bench.begin("echo >>/count; busybox wc -l </count")
    (container,) = task.containers
    await bench.runtime.wait(container)
    await remove_image(bench)
    assert render_key(bench.chain_id) not in await snapshots_of(bench)

    await bench.runtime.restart(task, container, bench.log_uri(container))
    await bench.runtime.start(task, container)

    assert (await bench.finish(task)).output.split() == ["1", "2"]
    await collect_garbage(bench.containerd)
    assert await snapshots_of(bench) == set()


async def test_view_stays_with_the_image_and_goes_with_it(bench: Bench) -> None:
    await bench.run("true")
    await collect_garbage(bench.containerd)
    kept = await snapshots_of(bench)

    await remove_image(bench)

    assert kept == {bench.chain_id, render_key(bench.chain_id)}
    assert await snapshots_of(bench) == set()


async def test_record_goes_when_the_image_is_gone(bench: Bench) -> None:
    await bench.run("true")  # its users are known, so the record is made before the layers are seen
    await remove_image(bench)
    task = bench.plan({})
    await bench.prepare(task)

    with pytest.raises(CannotCreateContainerError) as caught:
        await bench.create(task)

    assert caught.value.image_is_gone
    assert await bench.containerd.containers.list() == ()


async def test_record_of_a_predecessor_for_another_image_is_replaced(bench: Bench) -> None:
    await bench.stack(1, lambda upper, _: (upper / "new").touch())
    newer, bench.chain_id = bench.chain_id, busybox_layer()[1]
    task = bench.plan({"command": ["ls", "/"]})
    await bench.prepare(task)
    container = await bench.create(task)
    await bench.containerd.processes.force_delete(container.id)
    bench.chain_id = newer

    await bench.create(task)
    await bench.runtime.start(task, container)

    assert "new" in (await bench.finish(task)).output.split()


async def test_directory_of_another_user_at_the_root_stays_theirs(bench: Bench) -> None:
    def fill(upper: Path, _: int) -> None:
        (upper / "x").touch()
        os.chown(upper, 1000, 1001)

    await bench.stack(1, fill)

    assert (await bench.run("busybox stat -c %u:%g /")).output == "1000:1001\n"


async def make_old_container(bench: Bench, task: TaskPlan) -> ContainerPlan:
    """Make the record and the snapshot that an older agent made; return the container."""
    (container,) = task.containers
    await bench.create(task)
    made = await bench.containerd.containers.get(container.id)
    await bench.containerd.processes.force_delete(container.id)
    await bench.containerd.containers.delete(container.id)
    labels = {name: text for name, text in made.labels.items() if name.startswith("fargate.")}
    client = bench.containerd.with_lease(task.lease)
    await client.containers.create(replace(made, snapshot_key=container.id, labels=labels))
    await client.snapshots(SNAPSHOTTER).prepare(container.id, bench.chain_id, {})
    return container


async def run_old_container(bench: Bench, container: ContainerPlan) -> None:
    mounts = await bench.containerd.snapshots(SNAPSHOTTER).mounts(container.id)
    await bench.containerd.processes.create(
        container.id,
        mounts,
        log_uri=bench.log_uri(container),
        terminal=False,
        options=RuncOptions(),
        deadline_s=30,
    )
    await bench.containerd.processes.start(container.id)


async def test_container_of_an_older_agent_is_restarted_on_its_snapshot_and_removed(
    bench: Bench,
) -> None:
    script = "echo >>/count; busybox wc -l </count"
    task = bench.plan({"command": ["sh", "-c", script]})
    await bench.prepare(task)
    container = await make_old_container(bench, task)
    await run_old_container(bench, container)
    await bench.runtime.wait(container)
    await remove_image(bench)

    assert await bench.runtime.exists(container)
    await bench.runtime.restart(task, container, bench.log_uri(container))
    await bench.runtime.start(task, container)

    assert (await bench.finish(task)).output.split() == ["1", "2"]
    assert not (task.storage / "c").exists() or not any((task.storage / "c").iterdir())
    assert await bench.traces(task) == []
    await collect_garbage(bench.containerd)
    assert await snapshots_of(bench) == set()


async def test_container_that_an_older_agent_began_to_make_is_made(bench: Bench) -> None:
    task = bench.plan({"command": ["sh", "-c", "exit 6"]})
    await bench.prepare(task)
    container = await make_old_container(bench, task)

    await bench.create(task)
    await bench.runtime.start(task, container)

    assert (await bench.finish(task)).status.code == 6
    assert await bench.traces(task) == []


async def test_other_snapshotters_keep_what_containers_write(bench: Bench) -> None:
    client = bench.containerd
    layer, diff_id = busybox_layer()
    await client.leases.ensure("native", {})
    snapshots = client.with_lease("native").snapshots("native")
    blob = next(one for one in await client.content.list() if one.size == len(layer))
    mounts = await snapshots.prepare("unpack", "", {})
    await client.diff.apply(
        Descriptor(media_type=LAYER_TYPE, digest=blob.digest, size=blob.size), mounts
    )
    await snapshots.commit(diff_id, "unpack", {})
    bench.runtime = make_runtime(client, [], snapshotter="native")

    task = await bench.begin("echo >>/count; busybox wc -l </count")
    (container,) = task.containers
    await bench.runtime.wait(container)
    assert (await snapshots.stat(container.id)).parent == diff_id
    await bench.runtime.restart(task, container, bench.log_uri(container))
    await bench.runtime.start(task, container)
    finished = await bench.finish(task)

    assert finished.output.split() == ["1", "2"]
    assert {one.key for one in await snapshots.list()} == {diff_id}
    await client.leases.delete("native")


def fill_with_special_files(upper: Path, layer: int) -> None:
    """Fill the lowest of the layers."""
    if layer == 0:
        (upper / "suid").write_bytes(EXIT_WITH_EUID)
        (upper / "suid").chmod(0o4755)
        (upper / "capable").mkdir()
        (upper / "capable" / "cat").write_bytes(Path("/bin/busybox").read_bytes())
        (upper / "capable" / "cat").chmod(0o755)
        os.setxattr(upper / "capable" / "cat", "security.capability", NET_RAW)
        os.setxattr(upper / "suid", "user.note", b"kept")
        os.mknod(upper / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (upper / "null").chmod(0o666)


@pytest.mark.parametrize(("layers", "read_only"), [(1, False), (MAX_LAYERS - 1, True)])
async def test_special_files_of_an_image_work(bench: Bench, layers: int, read_only: bool) -> None:
    await bench.stack(layers, fill_with_special_files)
    look = "/suid && echo >/null && cat /null && /capable/cat /proc/self/status"
    script = f"{look} | busybox grep CapEff; echo ready; sleep 60"
    task = await bench.begin(script, user="web", stopTimeout=0, readonlyRootFilesystem=read_only)
    (container,) = task.containers
    await bench.wait_for_output(task, "ready")

    (pid, *_) = await bench.containerd.processes.pids(container.id)
    assert os.getxattr(f"/proc/{pid}/root/suid", "user.note") == b"kept"
    capabilities, ready = bench.output_file(container).read_text().splitlines()
    assert (int(capabilities.split()[1], 16), ready) == (1 << CAP_NET_RAW, "ready")


async def test_special_files_that_a_container_makes_work(bench: Bench) -> None:
    await bench.stack(1, fill_with_special_files)
    script = (
        "busybox mknod /own c 1 3 && echo >/own && cat /own && busybox cp /suid /mine"
        " && busybox chmod 4755 /mine && busybox su -s /bin/sh web -c 'id -u; /mine'"
    )

    finished = await bench.run(script)

    assert (finished.status.code, finished.output) == (0, "1000\n")
