"""Passwords of ECR: asked of moto with the execution role, kept, renewed, and never shown."""

import asyncio
import base64
import json
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.aws.calls import AwsSite
from fargate_agent.aws.errors import RoleError
from fargate_agent.backoff import Backoff
from fargate_agent.containerd.client import Containerd
from fargate_agent.drivers import Image, no_login
from fargate_agent.egress.retry import Retry, Tries
from fargate_agent.egress.session import Egress
from fargate_agent.errors import CannotPullContainerError, ResourceInitializationError
from fargate_agent.image.registry.ecr import KEYS_WAIT_S, EcrHost, EcrPasswords
from fargate_agent.image.store import ContainerdImageStore, PullBehavior
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.plan import RolePlan, TaskPlan
from fargate_agent.role_keys import RoleKeys
from tests.fixtures.aws import ACCESS_KEY, REGION, ROLE, SECRET_KEY, Front
from tests.fixtures.images import BuiltImage, build_image, write_layout
from tests.fixtures.nameserver import NameServer
from tests.fixtures.pulls import Puller, joined
from tests.fixtures.registry import FakeRegistry

pytestmark = pytest.mark.root

ACCOUNT: Final = "123456789012"
HOST: Final = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
MOTO_PASSWORD: Final = f"{ACCOUNT}-auth-token"
AUTH: Final = f"Basic {base64.b64encode(f'AWS:{MOTO_PASSWORD}'.encode()).decode()}"
PREFIX: Final = (
    "ResourceInitializationError: unable to pull secrets or registry auth: execution resource "
    "retrieval failed: unable to retrieve ecr registry auth: "
)


@dataclass(kw_only=True)
class Ecr:
    """A registry under a name of ECR, and ECR itself, both only where the task is."""

    puller: Puller
    netns: Path
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    front: Front
    names: NameServer
    asked_roles: list[str] = field(default_factory=list)
    """Those that keys were asked for."""
    waits: list[float | None] = field(default_factory=list)
    """How long each time; None is as long as a start may."""
    role_error: RoleError | None = None

    def __post_init__(self) -> None:
        self.registry.basic = AUTH

    async def keys(self, task: TaskPlan, role: RolePlan, wait_s: float | None = None) -> RoleKeys:
        del task
        self.asked_roles.append(role.arn)
        self.waits.append(wait_s)
        if self.role_error is not None:
            raise self.role_error
        end = datetime.now(UTC) + timedelta(hours=1)
        return RoleKeys(
            access_key=ACCESS_KEY, secret_key=SECRET_KEY, token="session", expires_at=end
        )

    def store(
        self, *, local: bool = False, more_insecure: tuple[str, ...] = (), **changes: Any
    ) -> ContainerdImageStore:
        """Make the store of an agent."""
        site = AwsSite(region="eu-west-1", endpoint_url="http://aws.test:8000")
        return ContainerdImageStore(
            self.puller.containerd,
            replace(self.puller.settings, insecure_registries=(HOST, *more_insecure), **changes),
            Egress(socket_in_netns),
            self.puller.locks,
            None if local else EcrPasswords(site, self.keys),
        )

    async def task(self, role: str | None = ROLE) -> TaskPlan:
        plan = await self.puller.task(self.netns, servers=("127.0.0.53",))
        execution_role = None if role is None else RolePlan(arn=role, credentials_id="1")
        return replace(plan, execution_role=execution_role)

    async def pull(
        self, name: str, store: ContainerdImageStore | None = None, role: str | None = ROLE
    ) -> Image:
        store = store or self.store()
        return await store.ensure(name, await self.task(role), self.puller.told.append, joined())

    async def fail(self, name: str, store: ContainerdImageStore | None = None, **more: Any) -> str:
        with pytest.raises((CannotPullContainerError, ResourceInitializationError)) as caught:
            await self.pull(name, store, **more)
        return caught.value.reason

    def add(self) -> tuple[str, BuiltImage]:
        image = build_image()
        self.registry.add("team/web", "1", image)
        return f"{HOST}/team/web:1", image


@pytest.fixture
async def ecr(containerd: Containerd, netns: Path, moto: str) -> AsyncIterator[Ecr]:
    def bound(address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        sock = socket_in_netns(netns, socket.AF_INET, kind)
        sock.bind((address, port))
        sock.setblocking(False)
        return sock

    records = {(HOST, "A"): ["127.0.0.80"], ("aws.test", "A"): ["127.0.0.99"]}
    made = Ecr(
        puller=Puller(containerd=containerd),
        netns=netns,
        front=Front(upstream=moto),
        names=NameServer(records=records),
    )
    udp, tcp = bound("127.0.0.53", 53, socket.SOCK_DGRAM), bound("127.0.0.53", 53)
    async with (
        made.names.serve(udp, tcp),
        made.registry.serve(bound("127.0.0.80", 80)),
        made.front.serve(bound("127.0.0.99", 8000)),
    ):
        yield made


def password(text: str, lasts: timedelta = timedelta(hours=12)) -> tuple[int, str]:
    """Return an answer of ECR."""
    token = base64.b64encode(f"AWS:{text}".encode()).decode()
    end = (datetime.now(UTC) + lasts).timestamp()
    return 200, json.dumps({"authorizationData": [{"authorizationToken": token, "expiresAt": end}]})


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(f'AWS:{text}'.encode()).decode()}"


async def test_image_is_pulled_with_the_password_that_ecr_gives_to_the_execution_role(
    ecr: Ecr, caplog: pytest.LogCaptureFixture
) -> None:
    name, image = ecr.add()

    with caplog.at_level(logging.DEBUG):
        pulled = await ecr.pull(name)

    assert (pulled.name, pulled.digest, pulled.source) == (name, image.digest, None)
    (call,) = ecr.front.calls
    assert (call.name, call.request) == ("GetAuthorizationToken", {"registryIds": [ACCOUNT]})
    assert (call.key, call.token, call.peer) == (ACCESS_KEY, "session", "127.0.0.1")
    assert ecr.asked_roles == [ROLE]
    assert {shown for _, shown in ecr.registry.headers} == {AUTH}
    for secret in (MOTO_PASSWORD, AUTH.removeprefix("Basic "), SECRET_KEY):
        assert secret not in caplog.text


async def test_password_serves_every_task_of_the_role_and_no_other(ecr: Ecr) -> None:
    name, _ = ecr.add()
    ecr.front.faults.extend([password(MOTO_PASSWORD)] * 2)
    store = ecr.store()

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(ecr.pull(name, store))
    assert len(ecr.front.calls) == 1

    await ecr.pull(name, store, role=f"{ROLE}-other")
    assert len(ecr.front.calls) == 2
    assert ecr.asked_roles == [ROLE, f"{ROLE}-other"]


async def test_password_is_renewed_shortly_before_its_end(ecr: Ecr) -> None:
    name, _ = ecr.add()
    ecr.front.faults.extend([password(MOTO_PASSWORD, timedelta(minutes=4))] * 2)
    store = ecr.store()

    await ecr.pull(name, store)
    await ecr.pull(name, store)

    assert len(ecr.front.calls) >= 2


async def test_password_that_the_registry_refuses_is_asked_for_anew_once(ecr: Ecr) -> None:
    name, image = ecr.add()
    ecr.front.faults.extend([password("old"), password("new"), password("newer")])
    store = ecr.store()
    ecr.registry.basic = basic("old")
    await ecr.pull(name, store)

    ecr.registry.basic = basic("new")
    assert (await ecr.pull(name, store)).digest == image.digest
    assert len(ecr.front.calls) == 2

    ecr.registry.basic = basic("none")
    fresh = ecr.store(behavior=PullBehavior.ALWAYS)
    reason = await ecr.fail(name, fresh)
    assert "pull access denied" in reason
    assert len(ecr.front.calls) <= 4


@pytest.mark.parametrize(
    ("fault", "tries", "said"),
    [
        pytest.param(
            (400, '{"__type": "AccessDeniedException", "Message": "not authorized"}'),
            1,
            "AccessDeniedException: not authorized",
            id="denied",
        ),
        pytest.param(
            (400, '{"__type": "ThrottlingException", "message": "Rate exceeded"}'),
            3,
            "ThrottlingException: Rate exceeded",
            id="throttled",
        ),
        pytest.param(
            (200, '{"authorizationData": [{"authorizationToken": "%", "expiresAt": 1}]}'),
            1,
            "ecr answered with what is no authorization token",
            id="no token",
        ),
    ],
)
async def test_refusal_of_ecr_is_told_in_the_words_of_fargate(
    ecr: Ecr, fault: tuple[int, str], tries: int, said: str
) -> None:
    name, _ = ecr.add()
    ecr.front.faults.extend([fault] * tries)

    reason = await ecr.fail(name)

    assert reason == f"{PREFIX}service call has been retried {tries} time(s): {said}"
    assert ecr.registry.requests == []


async def test_ecr_that_cannot_be_reached_is_told_in_the_words_of_fargate(ecr: Ecr) -> None:
    name, _ = ecr.add()
    del ecr.names.records["aws.test", "A"]

    assert await ecr.fail(name) == (
        f"{PREFIX}service call has been retried 3 time(s): RequestError: send request failed "
        'caused by: Post "http://aws.test:8000/": dial tcp: lookup aws.test: no such host. '
        "Please check your task network configuration."
    )


@pytest.mark.parametrize("why", ["no way", "no keys", "no role", "without AWS", "no login"])
async def test_loaded_image_runs_at_once_where_ecr_gives_no_password(
    ecr: Ecr,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    name, image = ecr.add()
    monkeypatch.setattr("fargate_agent.image.sources.LOGIN_WAIT_S", 0.1)
    await ecr.puller.admin.load(write_layout(tmp_path / "image.tar", {name: image}))
    slow = Retry(attempts=5, backoff=Backoff(first_s=60, longest_s=60))
    if why == "no way":
        del ecr.names.records["aws.test", "A"]
    if why == "no keys":
        ecr.role_error = RoleError("no credentials")
    store = ecr.store(retry=slow, local=why == "without AWS")

    with caplog.at_level(logging.WARNING):
        role, find_login = None if why == "no role" else ROLE, no_login
        if why == "no login":
            find_login = asyncio.Event().wait  # type: ignore[assignment]  # which nobody sets
        told, task = ecr.puller.told.append, await ecr.task(role)
        pulled = await store.ensure(name, task, told, joined(), find_login)

    assert pulled.digest == image.digest
    assert f"{name}: using the copy on this machine: " in caplog.text
    assert ecr.front.calls == []


@pytest.mark.parametrize("copy", [True, False], ids=["copy here", "no copy"])
async def test_keys_of_a_role_are_waited_for_shortly_where_a_copy_is_here(
    ecr: Ecr, tmp_path: Path, copy: bool
) -> None:
    name, image = ecr.add()
    if copy:
        await ecr.puller.admin.load(write_layout(tmp_path / "image.tar", {name: image}))

    assert (await ecr.pull(name)).digest == image.digest

    assert ecr.waits == [KEYS_WAIT_S if copy else None]


async def test_task_without_a_way_to_ecr_does_not_keep_others_of_its_role_waiting(
    ecr: Ecr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fargate_agent.image.registry.ecr.TIMEOUT_S", 0.5)
    asked, never = asyncio.Event(), asyncio.Event()

    async def get_keys(task: TaskPlan, role: RolePlan, wait_s: float | None = None) -> RoleKeys:
        if task is stuck:
            asked.set()
            await never.wait()
        return await ecr.keys(task, role, wait_s)

    site = AwsSite(region=REGION, endpoint_url="http://aws.test:8000")
    passwords = EcrPasswords(site, get_keys)
    stuck, other = await ecr.task(), await ecr.task()
    tries, host = Tries(retry=Retry()), EcrHost(account=ACCOUNT, region=REGION)
    egress = Egress(socket_in_netns)
    async with egress.session(other, 5) as http:
        first = asyncio.create_task(passwords.get(http, host, stuck, tries, None))
        await asked.wait()
        async with asyncio.timeout(30):
            found = await passwords.get(http, host, other, tries, None)
        first.cancel()
        await asyncio.wait([first])

    assert found.header == AUTH


async def test_machine_without_aws_says_what_can_be_done(ecr: Ecr) -> None:
    name, _ = ecr.add()

    reason = await ecr.fail(name, ecr.store(local=True))

    assert reason.startswith("CannotPullContainerError: no password is asked for of ECR")
    assert "registry_mirrors" in reason
    assert ecr.front.calls == []
    assert ecr.registry.requests == []


async def test_task_without_an_execution_role_is_told_so(ecr: Ecr) -> None:
    name, _ = ecr.add()

    assert await ecr.fail(name, role=None) == (
        f"{PREFIX}Fargate requires task definition to have execution role ARN to support ECR "
        "images."
    )


async def test_what_the_operator_gave_for_the_registry_comes_first(
    ecr: Ecr, tmp_path: Path
) -> None:
    name, image = ecr.add()
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {HOST: {"auth": AUTH.removeprefix("Basic ")}}}))

    pulled = await ecr.pull(name, ecr.store(auth_file=file, local=True))

    assert pulled.digest == image.digest
    assert ecr.front.calls == []


@pytest.mark.parametrize("local", [True, False], ids=["without AWS", "with AWS"])
async def test_mirror_of_ecr_is_shown_no_password_of_ecr(ecr: Ecr, local: bool) -> None:
    image = build_image()
    mirror = FakeRegistry()
    mirror.add("ecr/team/web", "1", image)
    listener = socket_in_netns(ecr.netns, socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.81", 5000))
    listener.setblocking(False)
    ecr.puller.settings = replace(ecr.puller.settings, mirrors={HOST: ("127.0.0.81:5000/ecr",)})
    store = ecr.store(local=local, more_insecure=("127.0.0.81:5000",))

    async with mirror.serve(listener):
        pulled = await ecr.pull(f"{HOST}/team/web:1", store)

    assert (pulled.name, pulled.digest) == (f"{HOST}/team/web:1", image.digest)
    assert pulled.source == "127.0.0.81:5000/ecr/team/web:1"
    assert {shown for _, shown in mirror.headers} == {""}
    assert ecr.front.calls == []
    assert ecr.registry.requests == []
