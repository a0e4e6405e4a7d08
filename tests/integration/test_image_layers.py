"""Layers that processes of the agent unpack: the same files as containerd makes, and no others."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import tarfile
from collections import deque
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.drivers import PullProgress
from fargate_agent.image.content import NO_SPACE
from fargate_agent.image.extraction import LEAST_STREAMS
from fargate_agent.image.layers.confine import MAX_MEMORY_BYTES, OOM_SCORE_ADJ
from fargate_agent.image.layers.program import EXIT_UNKNOWN
from fargate_agent.image.manifest import chain_ids
from fargate_agent.image.staging import make_key
from tests.fixtures.busybox import SNAPSHOTTER
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import build_image, digest_of, random_layer
from tests.fixtures.layers import Peer, Tar, make_odd_layers, spoil
from tests.fixtures.pulls import Puller, eventually, find_processes
from tests.fixtures.registry import FakeRegistry, Fault

pytestmark = pytest.mark.root

LEFT = "is unpacked by containerd"


@pytest.fixture
async def peer(containerd: Containerd) -> Peer:
    await containerd.leases.ensure("test", {})
    return Peer(containerd=containerd.with_lease("test"))


@pytest.mark.timeout(240)  # 66 layers in two ways, on a machine that may be busy
async def test_odd_layers_become_the_files_that_containerd_makes(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wrong: dict[str, Any] = {}
    for name, odd in make_odd_layers().items():
        caplog.clear()
        layers = (*odd.below, odd.layer)
        ours = await peer.unpack(layers, odd.packing)
        left = [one.getMessage() for one in caplog.records if LEFT in one.getMessage()]
        theirs = await peer.apply(layers, odd.packing)
        if isinstance(ours, str) or isinstance(theirs, str):
            if not (odd.fails and ours == theirs):
                wrong[name] = (ours, theirs)
        elif ours != theirs or odd.fails:
            wrong[name] = (
                [one for one in ours if one not in theirs],
                [one for one in theirs if one not in ours],
            )
        elif bool(left) != odd.by_containerd:
            wrong[name] = left or "the agent"
    assert wrong == {}


@pytest.mark.timeout(3600)  # with FUZZ_LAYERS for a longer run by hand
async def test_spoilt_layers_become_what_containerd_makes_of_them(peer: Peer) -> None:
    random = Random(int(os.environ.get("FUZZ_SEED", "1")))
    odd = [one for one in make_odd_layers().values() if len(one.layer) < 100_000]
    for _ in range(int(os.environ.get("FUZZ_LAYERS", "8"))):
        chosen = random.choice(odd)
        layers = (*chosen.below, spoil(chosen.layer, random))

        assert await peer.unpack(layers) == await peer.apply(layers), layers[-1]


async def test_pulled_layers_are_unpacked_as_they_come(
    puller: Puller, fake_registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    layers = [
        Tar().dir("a").add("a/old").add("f", data=b"1" * 3_000_000).end(),
        Tar().dir("a").add("a/.wh.old").add("g", data=b"2" * 3_000_000).end(),
        Tar().dir("a").add("a/.wh..wh..opq").add("a/new").end(),
    ]
    name = fake_registry.add("whole", "latest", build_image(layers, packing="plain"))
    progress: list[PullProgress] = []

    image = await puller.pull(name, progress=progress.append)

    assert await puller.read_file(image, "g") == b"2" * 3_000_000
    assert LEFT not in caplog.text
    steps = [one.unpacked_layers for one in progress]
    assert steps == sorted(steps)
    assert steps[-1] == 3
    snapshots = await puller.containerd.snapshots(SNAPSHOTTER).list()
    assert {one.key for one in snapshots} == set(chain_ids(map(digest_of, layers)))


async def test_layer_whose_transfer_breaks_off_is_unpacked_without_containerd(
    puller: Puller, fake_registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    image = build_image([random_layer(3_000_000)])
    name = fake_registry.add("broken", "latest", image)
    fake_registry.faults[image.layers[0]] = deque([Fault(cut_after=2_000_000)])

    await puller.pull(name)

    assert fake_registry.count(f"blobs/{image.layers[0]}") == 2
    assert LEFT not in caplog.text


async def test_nothing_is_written_outside_the_layer(peer: Peer, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    before = outside.stat().st_mtime_ns
    up = "../" * 20
    layer = (
        Tar()
        .symlink("out", str(outside))
        .symlink("up", f"{up}{outside}")
        .dir(str(outside)[1:])
        .add("out/a", data=b"1")
        .add("up/b", data=b"1")
        .add(f"{up}{outside}/c", data=b"1")
        .link("out/d", f"{up}{outside}/a")
        .end()
    )

    tree = await peer.unpack([layer])

    assert {"a", "b", "c", "d"} <= {one[0] for one in tree}
    assert list(outside.iterdir()) == []
    assert outside.stat().st_mtime_ns == before


async def test_layer_that_does_not_fit_is_refused_and_leaves_nothing(
    tiny_containerd: PrivateContainerd,
) -> None:
    many = Tar()
    for number in range(1500):
        many.add(str(number))
    layers = {"bytes": Tar().add("bomb", data=bytes(48 << 20)).end(), "files": many.end()}
    async with Containerd(tiny_containerd.socket, "test-full") as client:
        await client.ensure_namespace()
        peer = Peer(containerd=client.with_lease("test"))
        free = os.statvfs(tiny_containerd.directory)

        def is_given_back() -> bool:  # by containerd's garbage collector
            left = os.statvfs(tiny_containerd.directory)
            lost_bytes = (free.f_bfree - left.f_bfree) * free.f_frsize
            return lost_bytes < 1 << 20 and free.f_ffree - left.f_ffree < 100

        reasons = {}
        for name, layer in layers.items():
            await client.leases.ensure("test", {})
            reasons[name] = await peer.unpack([layer])
            await client.leases.delete("test", sync=True)  # as at the end of the task
            await eventually(is_given_back)
        assert await client.snapshots(SNAPSHOTTER).list() == ()
    assert reasons == dict.fromkeys(
        layers, f"failed to unpack image on snapshotter overlayfs: {NO_SPACE}"
    )


async def test_layer_whose_process_is_killed_is_unpacked_by_containerd(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    layer = random_layer(100_000)
    descriptor = await peer.store(layer)
    async with peer.unpacker([layer]) as unpacker:
        await unpacker.begin(0, descriptor)
        await eventually(lambda: len(find_processes()) == 1)
        (pid,) = find_processes()
        os.kill(pid, signal.SIGKILL)

        await unpacker.complete(0, descriptor)
        await unpacker.unpack(0, descriptor)

    assert LEFT in caplog.text
    assert find_processes() == []
    assert len(await peer.containerd.snapshots(SNAPSHOTTER).list()) == 1


async def test_process_is_bounded_in_memory_and_ended_first_where_that_is_short(peer: Peer) -> None:
    layer = random_layer(100_000)
    descriptor = await peer.store(layer)
    async with peer.unpacker([layer]) as unpacker:
        await unpacker.begin(0, descriptor)
        await eventually(lambda: len(find_processes()) == 1)
        (pid,) = find_processes()
        process = Path("/proc", str(pid))

        def limit_bytes() -> str:
            lines = (process / "limits").read_text().splitlines()
            return next(line for line in lines if line.startswith("Max address space")).split()[4]

        await eventually(lambda: limit_bytes() == str(MAX_MEMORY_BYTES))
        assert (process / "oom_score_adj").read_text() == f"{OOM_SCORE_ADJ}\n"


async def test_why_a_process_gave_up_in_the_middle_of_a_layer_is_told(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    layer = Tar().add("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    layer.add("more", data=os.urandom(4_000_000))

    assert {one[0] for one in await peer.unpack([layer.end()])} >= {"null", "more"}

    assert f"{LEFT}: Operation not permitted" in caplog.text


async def test_processes_of_all_images_together_are_bounded(peer: Peer) -> None:
    images = [[random_layer(50_000) for _ in range(4)] for _ in range(3)]
    unpackers = [peer.unpacker(layers) for layers in images]
    async with AsyncExitStack() as stack:
        for layers, unpacker in zip(images, unpackers, strict=True):
            await stack.enter_async_context(unpacker)
            for position, layer in enumerate(layers):
                await unpacker.begin(position, await peer.store(layer))
        await eventually(lambda: len(find_processes()) == LEAST_STREAMS)
        for layers, unpacker in zip(images, unpackers, strict=True):
            for position, layer in reversed(list(enumerate(layers))):
                await unpacker.complete(position, await peer.store(layer))
        assert find_processes() == []
        later = await stack.enter_async_context(peer.unpacker([b""]))
        await later.begin(0, await peer.store(b""))
        await eventually(lambda: len(find_processes()) == 1)
        for layers, unpacker in zip(images, unpackers, strict=True):
            for position, layer in enumerate(layers):
                await unpacker.unpack(position, await peer.store(layer))
            assert await unpacker.is_done()


async def test_pull_that_is_given_up_ends_its_processes(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(1_000_000)])
    name = fake_registry.add("slow", "latest", image)
    fake_registry.gates[image.layers[0]] = asyncio.Event()
    task = await puller.task()
    pull = asyncio.create_task(puller.pull(name, task))
    await eventually(lambda: bool(find_processes()))

    pull.cancel()
    await asyncio.wait([pull])

    assert find_processes() == []
    await puller.end(task)
    assert await puller.containerd.snapshots(SNAPSHOTTER).list() == ()


async def test_what_a_killed_agent_had_begun_to_unpack_is_removed_by_the_next(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = await puller.pull(fake_registry.add("there", "latest", build_image()))
    await puller.containerd.leases.ensure("test", {})
    leased = puller.containerd.with_lease("test")
    snapshots = leased.snapshots(SNAPSHOTTER)
    other, own = f"fargate-unpack-1234 {image.chain_id}", make_key(image.chain_id)
    for key in (other, own, "container"):
        await snapshots.prepare(key, "", {})

    assert await puller.store().sweep(()) == [other]

    left = {one.key for one in await snapshots.list()}
    assert left == {own, "container", image.chain_id}


def test_process_can_make_files_and_do_nothing_else(tmp_path: Path) -> None:
    code = f"""
import ctypes, errno, os, socket, sys
sys.path.append({str(Path.cwd())!r})
from fargate_agent.image.layers.confine import confine
libc = ctypes.CDLL(None, use_errno=True)
outside = os.open("/", os.O_RDONLY)
os.close(outside)
confine({str(tmp_path)!r})
def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
def foreign(name, *arguments):
    return "done" if getattr(libc, name)(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
print(
    attempt(socket.socket), attempt(os.fork), attempt(os.execv, "/bin/true", ["true"]),
    attempt(os.mknod, "/disk", 0o60600, os.makedev(8, 0)), attempt(os.mknod, "/.hid", 0o20000, 0),
    attempt(os.chroot, "/"), attempt(os.kill, 1, 0), attempt(os.open, "/etc/passwd", 0),
    foreign("mount", b"a", b"/", b"tmpfs", 0, None), foreign("unshare", 0x10000000),
    foreign("ptrace", 16, 1, 0, 0), attempt(os.mkdir, "/made"), attempt(os.pipe),
)
"""
    done = subprocess.run(
        [sys.executable, "-ISE", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    wanted = ["EPERM"] * 4 + ["done"] + ["EPERM"] * 2 + ["ENOENT"] + ["EPERM"] * 3
    assert done.stdout.split() == [*wanted, "done", "EPERM"]
    assert (tmp_path / "made").is_dir()


PING: Final = "\x01\x00\x00\x02\x00\x20" + "\x00" * 14
"""`cap_net_raw=ep`, as setcap(8) writes it."""

UNIT: Final = Path(__file__).parents[2] / "systemd" / "fargate-agent.service"


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        pytest.param(
            Tar().dir("a", uid=7, mode=0o700).add("a/.wh.b").add("c", uid=8).end(), 0, id="usual"
        ),
        pytest.param(
            Tar()
            .dir("usr")
            .add("usr/su", mode=0o4755)
            .add("usr/chage", gid=42, mode=0o2755)
            .dir("usr/mail", gid=8, mode=0o2775)
            .dir("tmp", mode=0o1777)
            .add("ping", pax_headers={"SCHILY.xattr.security.capability": PING})
            .end(),
            0,
            id="base of Debian",
        ),
        pytest.param(
            Tar().add("null", tarfile.CHRTYPE, devmajor=1, devminor=3).end(),
            EXIT_UNKNOWN,
            id="device",
        ),
    ],
)
def test_with_the_rights_of_the_unit_what_it_forbids_is_left_to_containerd(
    tmp_path: Path, layer: bytes, code: int
) -> None:
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("CapabilityBound")]
    names = [name for line in lines for name in line.partition("=")[2].split()]
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names)
    forbid = """
import ctypes, errno, os, resource, sys
sys.path += sys.argv[1].split(":")
del sys.argv[1]
def refuse(*_): raise PermissionError(errno.EPERM, "as @resources is filtered out")
resource.setrlimit = refuse
from fargate_agent.image.layers.program import main
sys.exit(main())
"""
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set", f"-all,{kept}", "--no-new-privs"),
            *(sys.executable, "-ISE", "-c", forbid, str(UNIT.parents[1])),
            *(str(tmp_path), "plain", "upper"),
        ],
        input=layer,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == code, done
