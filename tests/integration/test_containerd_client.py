"""The client itself: coming to a containerd that is there, away, or not there yet."""

import asyncio
from pathlib import Path

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.containers import ContainerRecord
from fargate_agent.containerd.errors import AlreadyExistsError, NotFoundError, UnavailableError
from tests.fixtures.containerd import PrivateContainerd

pytestmark = pytest.mark.root

DEADLINE_S = 10


async def test_version_tells_which_containerd_answers(containerd: Containerd) -> None:
    version = await containerd.version()

    assert int(version.version.split(".")[0]) >= 1


async def test_version_fails_at_once_when_nobody_is_there(tmp_path: Path) -> None:
    async with Containerd(tmp_path / "no.sock", "test") as client, asyncio.timeout(DEADLINE_S):
        with pytest.raises(UnavailableError, match="ask containerd for its version"):
            await client.version()


async def test_a_containerd_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    daemon = PrivateContainerd(tmp_path)
    async with Containerd(daemon.socket, "test") as client:
        waiting = asyncio.create_task(client.wait_until_served())
        done_before = (await asyncio.wait({waiting}, timeout=0.3))[0]
        try:
            await asyncio.to_thread(daemon.start)
            async with asyncio.timeout(DEADLINE_S):
                await waiting
            await client.version()
        finally:
            await asyncio.to_thread(daemon.remove)

    assert not done_before


async def test_a_containerd_that_has_gone_is_waited_for_whenever_it_answered(
    tmp_path: Path,
) -> None:
    daemon = PrivateContainerd(tmp_path)
    await asyncio.to_thread(daemon.start)
    try:
        async with Containerd(daemon.socket, "test") as client:
            await client.wait_until_served(patience_s=3600)
            await asyncio.to_thread(daemon.stop)
            with pytest.raises(UnavailableError):
                await client.version()
            waiting = asyncio.create_task(client.wait_until_served(patience_s=3600))
            done_before = (await asyncio.wait({waiting}, timeout=0.3))[0]
            await asyncio.to_thread(daemon.start)
            async with asyncio.timeout(DEADLINE_S):
                await waiting
    finally:
        await asyncio.to_thread(daemon.remove)

    assert not done_before


async def test_a_namespace_may_be_ensured_again(containerd: Containerd) -> None:
    await containerd.ensure_namespace()

    assert await containerd.containers.list() == ()


async def test_plugins_that_did_not_load_say_why(containerd: Containerd) -> None:
    plugins = await containerd.introspection.plugins(["type==io.containerd.snapshotter.v1"])

    errors = {plugin.id: plugin.error for plugin in plugins}
    assert errors["overlayfs"] is None
    assert errors["devmapper"] == "devmapper not configured"


async def test_a_container_record_is_made_read_labelled_and_deleted(
    containerd: Containerd,
) -> None:
    record = ContainerRecord(
        id="web",
        image="test.example/web:1",
        spec=b"{}",
        snapshotter="overlayfs",
        snapshot_key="web",
        labels={"team": "web"},
    )
    await containerd.containers.create(record)

    made = await containerd.containers.get("web")
    await containerd.containers.set_labels("web", {"team": "db", "tier": "1"})

    assert made.created_at is not None
    assert (made.image, made.spec, made.snapshot_key, made.labels) == (
        record.image,
        record.spec,
        record.snapshot_key,
        record.labels,
    )
    (found,) = await containerd.containers.list(["labels.team==db"])
    assert found.labels == {"team": "db", "tier": "1"}
    assert found.spec == record.spec
    assert await containerd.containers.list(["labels.team==web"]) == ()
    with pytest.raises(AlreadyExistsError):
        await containerd.containers.create(record)
    await containerd.containers.delete("web")
    await containerd.containers.delete("web")
    with pytest.raises(NotFoundError):
        await containerd.containers.get("web")


async def test_namespaces_do_not_see_each_other(
    containerd: Containerd, containerd_socket: Path
) -> None:
    await containerd.containers.create(ContainerRecord(id="web", image="", spec=b"{}"))

    async with Containerd(containerd_socket, f"{containerd.namespace}-other") as other:
        assert await other.containers.list() == ()
