"""Loads that break off, or meet others, in a real containerd, through the agent's socket."""

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fargate_agent.cli.clients.agent import Agent
from fargate_agent.cli.failure import CliError
from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.content import ContentWriter
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.image.admin import ImageAdmin
from fargate_agent.image.document import MAX_LIST_LENGTH
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.uses import is_loaded, turn_of
from fargate_agent.local.server import LocalServer
from tests.fixtures.images import (
    OCI,
    BuiltImage,
    build_image,
    build_index,
    random_layer,
    write_layout,
)
from tests.fixtures.pulls import Puller, eventually
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.unused_images import HOUR, Machine

pytestmark = pytest.mark.root

NAME = "test.example/team/web:1"


def make_server(images: ImageAdmin, spool_dir: Path) -> LocalServer:
    nobody = cast(Any, None)

    class NoRoutes:
        def routes(self) -> list[Any]:
            return []

    return LocalServer(
        supervisor=nobody,
        images=images,
        secrets=cast(Any, NoRoutes()),
        registries=cast(Any, NoRoutes()),
        findings=nobody,
        look=nobody,
        logs_dir=Path("/nowhere"),
        log_copy=True,
        spool_dir=spool_dir,
        is_connected=lambda: True,
        containerd_version="",
        cgroups="",
        render_metrics=nobody,
    )


@asynccontextmanager
async def served(images: ImageAdmin, directory: Path) -> AsyncIterator[Agent]:
    socket = directory / "agent.sock"
    async with make_server(images, directory / "spool").serve(socket), Agent(socket) as agent:
        yield agent


async def load(agent: Agent, file: Path) -> list[str]:
    with file.open("rb") as archive:
        return await agent.load(archive, file.name, None)


async def load_and_hang(address: str, namespace: str, directory: str) -> None:
    """Be an agent whose load has come to the first commit, and stays there."""

    async def hang(self: ContentWriter, labels: dict[str, str]) -> None:
        del self, labels
        sys.stdout.write("writing\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    ContentWriter.commit = hang  # type: ignore[assignment, method-assign]
    async with (
        Containerd(Path(address), namespace) as containerd,
        served(ImageAdmin(containerd, KeyedLocks()), Path(directory)) as agent,
    ):
        await load(agent, Path(directory) / "a.tar")


async def test_what_an_agent_had_begun_to_load_when_it_was_killed_is_gone_after_the_next_start(
    puller: Puller, tmp_path: Path
) -> None:
    write_layout(tmp_path / "a.tar", {NAME: build_image([random_layer(3_000_000)])})
    of_others = tmp_path / "spool" / "other"
    of_others.parent.mkdir()
    of_others.touch()
    await puller.containerd.leases.ensure("fargate-0123", {})
    containerd = puller.containerd
    arguments = (str(containerd.address), containerd.namespace, str(tmp_path))
    code = f"import asyncio; from {__name__} import *; asyncio.run(load_and_hang(*{arguments!r}))"
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    assert await agent.stdout.readline() == b"writing\n"
    agent.kill()
    assert await agent.wait() == -signal.SIGKILL
    assert len(await containerd.leases.list()) == 2
    assert len(await containerd.content.list_unfinished()) == 1
    assert len(list((tmp_path / "spool").iterdir())) == 2

    await make_server(puller.admin, tmp_path / "spool").remove_leftovers()

    assert [lease.id for lease in await containerd.leases.list()] == ["fargate-0123"]
    assert await containerd.content.list_unfinished() == ()
    assert list((tmp_path / "spool").iterdir()) == [of_others]


def count_waiting(lock: asyncio.Lock) -> int:
    return len(getattr(lock, "_waiters", None) or ())


async def test_an_image_that_the_collector_is_removing_is_there_after_the_load(
    machine: Machine, tmp_path: Path
) -> None:
    """The collector and the load wait for the turn of its name, one after the other."""
    name = await machine.add("web:1", 5 * HOUR)
    file = write_layout(tmp_path / "a.tar", {name: build_image()})
    turn = turn_of(machine.locks, name)
    async with turn:
        cleaning = asyncio.create_task(machine.collector().clean_up())
        await eventually(lambda: count_waiting(turn) == 1)
        loading = asyncio.create_task(ImageAdmin(machine.containerd, machine.locks).load(file))
        await eventually(lambda: count_waiting(turn) == 2)
        assert not is_loaded(await machine.containerd.images.get(name))

    assert await cleaning == [name]
    assert await loading == [name]
    assert is_loaded(await machine.containerd.images.get(name))


async def test_two_loads_of_one_name_at_once_both_end_well(puller: Puller, tmp_path: Path) -> None:
    image = build_image([random_layer(3_000_000)])
    file = write_layout(tmp_path / "a.tar", {NAME: image})
    async with served(puller.admin, tmp_path) as agent, asyncio.TaskGroup() as group:
        loads = [group.create_task(load(agent, file)) for _ in range(4)]

    assert [one.result() for one in loads] == [[NAME]] * 4
    (summary,) = await puller.admin.list()
    assert summary.size_bytes == sum(map(len, (*image.blobs.values(), image.document)))
    assert await puller.containerd.leases.list() == ()
    assert await puller.containerd.content.list_unfinished() == ()


async def test_a_client_that_goes_away_leaves_nothing(
    puller: Puller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = tmp_path / "spool"
    async with served(puller.admin, tmp_path) as agent:
        _, writer = await asyncio.open_unix_connection(str(agent.socket))
        writer.write(
            b"POST /v1/images/load HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\nabc"
        )
        await eventually(lambda: spool.is_dir() and any(spool.iterdir()))
        writer.close()
        await eventually(lambda: not any(spool.iterdir()))

        assert await load(agent, write_layout(tmp_path / "a.tar", {NAME: build_image()})) == [NAME]
    assert caplog.records == []


@pytest.fixture
def machine(containerd: Containerd) -> Machine:
    return Machine(containerd=containerd)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        pytest.param(
            False, "the archive can't be kept in {}/spool: No space left on device", id="kept"
        ),
        pytest.param(True, "a.tar: the archive can't be unpacked: No space left", id="unpacked"),
    ],
)
async def test_a_disk_that_is_full_is_named(
    puller: Puller, small_disk: Path, tmp_path: Path, packed: bool, text: str
) -> None:
    file = write_layout(
        tmp_path / "a.tar", {NAME: build_image([bytes(5_000_000)], packing="plain")}
    )
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes()))
    async with served(puller.admin, small_disk) as agent:
        with pytest.raises(CliError, match=text.format(small_disk)):
            await load(agent, file)

    assert list((small_disk / "spool").iterdir()) == []


async def test_a_containerd_that_fails_is_named(puller: Puller, tmp_path: Path) -> None:
    class Failing(ImageAdmin):
        async def list(self) -> Any:
            raise ContainerdError("list images: no answer in time")

    async with served(Failing(puller.containerd, KeyedLocks()), tmp_path) as agent:
        with pytest.raises(CliError, match="containerd: list images: no answer in time"):
            await agent.images()


async def test_an_index_that_calls_a_layer_a_manifest_is_listed_and_pruned(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    """The layer is larger than any manifest, and the entry is for another machine."""
    image = build_image([random_layer(5_000_000)])
    document = json.loads(build_index([image]).document)
    wrong = {**image.descriptor, "digest": image.layers[0], "size": 10}
    document["manifests"].append({**wrong, "platform": {"os": "linux", "architecture": "arm64"}})
    index = BuiltImage(
        media_type=OCI["index"], document=json.dumps(document).encode(), children=(image,)
    )
    task = await puller.task()
    name = fake_registry.add("web", "1", index)
    await puller.pull(name, task)
    await puller.end(task)

    (summary,) = await puller.admin.list()

    assert summary.size_bytes == sum(
        map(len, (*image.blobs.values(), image.document, index.document))
    )
    assert (await puller.admin.prune()).names == (name,)
    assert await puller.containerd.content.list() == ()


async def test_many_indexes_of_many_manifests_are_listed(puller: Puller, tmp_path: Path) -> None:
    """containerd tells of them in one message, with a label for each manifest."""
    for number in range(20):
        image = build_image()
        document = json.loads(build_index([image]).document)
        gone = {"mediaType": OCI["manifest"], "digest": f"sha256:{number:064x}", "size": 1}
        document["manifests"] += [gone] * (MAX_LIST_LENGTH - 1)
        data = json.dumps(document).encode()
        index = BuiltImage(media_type=OCI["index"], document=data, children=(image,))
        await puller.admin.load(write_layout(tmp_path / "a.tar", {f"{NAME}.{number}": index}))

    assert len(await puller.admin.list()) == 20
