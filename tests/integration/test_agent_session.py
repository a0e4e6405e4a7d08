"""The agent's end of its connection, against a real control plane: how it presents itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from fargate_agent.acs import session as session_module
from fargate_agent.acs.api import ControlPlane as Api
from fargate_agent.acs.api import Credentials
from fargate_agent.acs.responder import Responder
from fargate_agent.acs.session import ARN_FILE, Registration, Session
from fargate_agent.credentials.roles import Roles
from fargate_agent.task.store import TaskStore
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.wire.attributes import Attribute
from tests.fakes import Diary, FakeSecurityGroups, FakeVpcServices
from tests.fixtures.controlplane import ControlPlane, add_principal
from tests.messages import site

pytestmark = pytest.mark.timeout(60)

X86 = Attribute("ecs.cpu-architecture", "x86_64")
AGENT_OF_DEFAULT = {
    "Effect": "Allow",
    "Action": ["ecs:RegisterContainerInstance", "ecs:DiscoverPollEndpoint", "ecs:Poll"],
    "Resource": "arn:aws:ecs:us-east-1:000000000000:cluster/default",
}


@pytest.fixture
def database() -> None:
    """Nothing here depends on it."""


@asynccontextmanager
async def connected(
    plane: ControlPlane,
    directory: Path,
    *clusters: str,
    read_attributes: Callable[[], tuple[Attribute, ...]] = lambda: (X86,),
    storage_gib: int | None = None,
) -> AsyncIterator[None]:
    """Keep an agent without a machine connected."""
    key = Credentials(access_key=plane.keys["agent"][0], secret_key=plane.keys["agent"][1])
    async with serving(
        plane,
        directory,
        *clusters,
        key=key,
        read_attributes=read_attributes,
        storage_gib=storage_gib,
    ) as session:
        await session.has_connected.wait()
        yield


@asynccontextmanager
async def serving(
    plane: ControlPlane,
    directory: Path,
    *clusters: str,
    key: Credentials,
    read_attributes: Callable[[], tuple[Attribute, ...]] = lambda: (X86,),
    storage_gib: int | None = None,
) -> AsyncIterator[Session]:
    """Let an agent without a machine try to connect."""
    supervisor = Supervisor(
        site=site(directory),
        store=TaskStore(directory / "records"),
        boot_id="boot",
        send=lambda _: None,
    )
    registration = Registration(
        clusters=clusters,
        cpu_units=1024,
        memory_mib=2048,
        read_attributes=read_attributes,
        arn_file=directory / ARN_FILE,
        read_storage_gib=lambda: storage_gib,
    )
    async with aiohttp.ClientSession() as http:
        responder = Responder(
            supervisor, lambda _: None, Roles(), FakeSecurityGroups(), FakeVpcServices(Diary())
        )
        session = Session(http, Api(http, [plane.url], key, "us-east-1"), registration, responder)
        job = asyncio.create_task(session.serve())
        try:
            yield session
        finally:
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job


async def describe(ecs: Any, cluster: str = "default") -> dict[str, Any]:
    """Return the only instance of a cluster."""
    arns = (await asyncio.to_thread(ecs.list_container_instances, cluster=cluster))[
        "containerInstanceArns"
    ]
    answer = await asyncio.to_thread(
        ecs.describe_container_instances, cluster=cluster, containerInstances=arns
    )
    found: list[dict[str, Any]] = answer["containerInstances"]
    assert len(found) == 1
    return found[0]


def served(instance: dict[str, Any]) -> list[str]:
    names: list[str] = next(
        resource["stringSetValue"]
        for resource in instance["registeredResources"]
        if resource["name"] == "CLUSTERS"
    )
    return names


async def test_agent_that_is_not_pinned_serves_every_cluster(
    control_plane: ControlPlane, ecs: Any, tmp_path: Path
) -> None:
    async with connected(control_plane, tmp_path), asyncio.timeout(15):
        while not (found := await describe(ecs))["agentConnected"]:
            await asyncio.sleep(0.02)

    assert served(found) == ["*"]
    assert found["attributes"] == [{"name": "ecs.cpu-architecture", "value": "x86_64"}]


@pytest.mark.parametrize("storage_gib", [None, 100])
async def test_agent_that_counts_storage_says_how_much_it_has(
    control_plane: ControlPlane, ecs: Any, tmp_path: Path, storage_gib: int | None
) -> None:
    async with connected(control_plane, tmp_path, storage_gib=storage_gib), asyncio.timeout(15):
        while not (found := await describe(ecs))["agentConnected"]:
            await asyncio.sleep(0.02)

    told = {one["name"]: one.get("integerValue") for one in found["registeredResources"]}
    assert told.get("STORAGE") == storage_gib


async def test_agent_that_is_pinned_registers_in_the_first_of_its_clusters(
    control_plane: ControlPlane, ecs: Any, tmp_path: Path
) -> None:
    for name in ("blue", "red"):
        await asyncio.to_thread(ecs.create_cluster, clusterName=name)
    async with connected(control_plane, tmp_path):
        before = await describe(ecs)
    async with connected(control_plane, tmp_path, "blue", "red"):
        after = await describe(ecs, "blue")
    async with connected(control_plane, tmp_path):
        again = await describe(ecs)

    assert served(after) == ["blue", "red"]
    assert after["containerInstanceArn"] == before["containerInstanceArn"].replace(
        "default", "blue"
    )
    assert again["containerInstanceArn"] == before["containerInstanceArn"]


@pytest.mark.parametrize("clusters", [(), ("red",)], ids=["every one", "one that it may not"])
async def test_agent_whose_key_is_not_allowed_every_cluster_says_what_to_do(
    clusters: tuple[str, ...],
    control_plane: ControlPlane,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await asyncio.to_thread(add_principal, control_plane.state_dir, [AGENT_OF_DEFAULT])
    key = Credentials(access_key="C" * 20, secret_key="s" * 40)

    async with serving(control_plane, tmp_path, *clusters, key=key):
        async with asyncio.timeout(15):
            while "not connected to the control plane: AccessDenied" not in caplog.text:
                await asyncio.sleep(0.02)

    assert ('set clusters = ["default"]' in caplog.text) == (clusters == ())


async def test_machine_that_can_do_more_is_registered_again(
    control_plane: ControlPlane, ecs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LOOK_EVERY_S", 0.05)
    now = [X86]
    async with connected(control_plane, tmp_path, read_attributes=lambda: tuple(now)):
        now.append(Attribute("fargate.capability.task-eni.macvlan.nic7"))
        async with asyncio.timeout(15):
            while len((await describe(ecs))["attributes"]) < 2:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("lacks", [True, False])
async def test_agent_asks_for_credentials_whenever_it_lacks_some(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: bool
) -> None:
    """A connection that broke before they came is no reason to do without them."""
    urls: list[URL] = []
    connect = aiohttp.ClientSession.ws_connect

    def note(http: aiohttp.ClientSession, url: str, **more: Any) -> Any:
        urls.append(URL(url))
        return connect(http, url, **more)

    monkeypatch.setattr(aiohttp.ClientSession, "ws_connect", note)
    for name in ("MAX_AGE_S", "MAX_AGE_JITTER_S"):
        monkeypatch.setattr(session_module, name, 0)
    monkeypatch.setattr(Responder, "lacks_credentials", lambda _: lacks)
    key = Credentials(
        access_key=control_plane.keys["agent"][0], secret_key=control_plane.keys["agent"][1]
    )
    async with serving(control_plane, tmp_path, key=key) as session:
        async with asyncio.timeout(15):
            while session.connections < 2:
                await asyncio.sleep(0.02)

    assert [url.query["sendCredentials"] for url in urls[:2]] == [str(lacks).lower()] * 2
