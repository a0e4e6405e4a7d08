"""`GET /events` of the real control plane."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from fargate_agent.controlplane.access.keys import ensure_keys
from fargate_agent.controlplane.history import stream
from tests.fixtures.cli import definition
from tests.fixtures.controlplane import (
    DEADLINE_S,
    ControlPlane,
    SimulatedAgent,
    StartControlPlane,
    sign,
)
from tests.fixtures.postgres import change_database

NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-default"]}}

NEVER_OLD = 4_000_000_000
"""Seconds since 1970: what is old is forgotten."""


def run_task(ecs: Any, **more: Any) -> str:
    """Return the id of a task of a definition that may be there already."""
    ecs.register_task_definition(**definition())
    answer = ecs.run_task(taskDefinition="web", networkConfiguration=NETWORK, **more)
    assert answer["failures"] == []
    return str(answer["tasks"][0]["taskArn"]).rpartition("/")[2]


def number(event: dict[str, Any]) -> int:
    return int(event["id"].rpartition("-")[2], 16)


class Reader:
    """Reads one stream of events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any] | None:
        """Return the next event; None when the stream has ended."""
        async with asyncio.timeout(DEADLINE_S):
            while line := await self.response.content.readline():
                if line.strip():
                    return dict(json.loads(line))
        return None

    async def heartbeat(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while await self.response.content.readline() != b"\n":
                pass

    async def rest(self) -> list[dict[str, Any]]:
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found

    async def until(self, status: str) -> list[dict[str, Any]]:
        """Return the events up to the first one with a status."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
            if event["detail"].get("lastStatus") == status:
                break
        return found


@asynccontextmanager
async def reading(
    plane: ControlPlane, principal: str = "admin", **parameters: str
) -> AsyncIterator[Reader]:
    url = f"{plane.url}/events"
    headers = sign("GET", url, plane.keys[principal], params=parameters)
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{url}?{urlencode(parameters)}", headers=headers) as response,
    ):
        yield Reader(response)


@pytest.fixture
async def obedient_agent(simulated_agent: SimulatedAgent) -> AsyncIterator[SimulatedAgent]:
    """An agent that brings up and takes down whatever it is told to."""
    job = asyncio.create_task(simulated_agent.run(exit_code=0))
    yield simulated_agent
    job.cancel()
    await asyncio.wait([job])


@pytest.mark.usefixtures("obedient_agent")
async def test_life_of_a_task_is_told_in_the_shape_of_eventbridge(
    control_plane: ControlPlane, ecs: Any
) -> None:
    async with reading(control_plane, follow="true") as reader:
        task = await asyncio.to_thread(run_task, ecs)
        events = await reader.until("STOPPED")

    details = [event["detail"] for event in events]
    assert list(dict.fromkeys(detail["lastStatus"] for detail in details)) == [
        "PROVISIONING", "PENDING", "RUNNING", "STOPPED",
    ]  # fmt: skip
    versions = [detail["version"] for detail in details]
    assert versions == sorted(set(versions))
    assert {event["detail-type"] for event in events} == {"ECS Task State Change"}
    assert {event["resources"][0].rpartition("/")[2] for event in events} == {task}
    last = details[-1]
    assert {attachment["type"] for attachment in last["attachments"]} == {"eni"}
    assert {container["exitCode"] for container in last["containers"]} == {0}
    assert last["stopCode"] == "EssentialContainerExited"
    times = {name: value for name, value in last.items() if name.endswith("At")}
    assert {"createdAt", "startedAt", "pullStartedAt", "stoppedAt", "updatedAt"} <= times.keys()
    assert all(isinstance(value, str) and value.endswith("Z") for value in times.values())


@pytest.mark.usefixtures("obedient_agent")
async def test_history_ends_and_can_be_narrowed(control_plane: ControlPlane, ecs: Any) -> None:
    async with reading(control_plane, follow="true") as reader:
        first = await asyncio.to_thread(run_task, ecs)
        await reader.until("STOPPED")
        second = await asyncio.to_thread(run_task, ecs)
        await reader.until("STOPPED")

    async def ask(**parameters: str) -> list[dict[str, Any]]:
        async with reading(control_plane, **parameters) as reader:
            return await reader.rest()

    everything = await ask()
    assert {event["detail"]["taskArn"][-32:] for event in everything} == {first, second}
    one = await ask(subject=first, cluster="default")
    assert one == [event for event in everything if event["detail"]["taskArn"][-32:] == first]
    assert await ask(subject=first[:20]) == one
    after = number(everything[3])
    assert await ask(after=str(after)) == everything[4:]
    assert await ask(since="4000000000", after="latest") == []


async def test_follower_gets_what_comes_after_now(
    control_plane: ControlPlane, ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    await asyncio.to_thread(run_task, ecs)
    await simulated_agent.take()

    async with reading(control_plane, follow="true", after="latest") as reader:
        second = await asyncio.to_thread(run_task, ecs)
        event = await reader.next()

    assert event is not None
    assert event["detail"]["taskArn"].endswith(second)
    assert int(reader.response.headers["X-Fargate-After"]) < number(event)


async def test_follower_hears_that_the_connection_lives(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)

    async with reading(control_plane, follow="true") as reader:
        await reader.heartbeat()
        await reader.heartbeat()


@pytest.mark.usefixtures("obedient_agent")
async def test_pages_are_joined(
    control_plane: ControlPlane, ecs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE_ROWS", 2)

    async with reading(control_plane, follow="true") as reader:
        await asyncio.to_thread(run_task, ecs)
        followed = await reader.until("STOPPED")
    async with reading(control_plane) as reader:
        asked = await reader.rest()

    assert asked == followed
    assert len(asked) > 4


async def test_reader_that_does_not_read_holds_up_nobody_and_is_given_up(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_TIMEOUT_S", 1)
    row = f"({NEVER_OLD}, 'default', 'large', 'none', :detail)"
    await change_database(
        control_plane.database,
        f"INSERT INTO events (at, cluster, kind, subject, detail) VALUES {', '.join([row] * 300)}",
        detail=json.dumps({"text": "x" * 60_000}),
    )

    async with reading(control_plane) as sleeper:
        async with reading(control_plane) as reader:
            read = await reader.response.content.read()
        with pytest.raises(aiohttp.ClientError):
            await _read_late(sleeper)

    assert read.count(b"\n") == 300


async def _read_late(reader: Reader) -> None:
    await asyncio.sleep(2 * stream.SEND_TIMEOUT_S)  # longer than it has to read
    while await reader.response.content.readany():
        pass


async def test_stream_ends_when_the_control_plane_does(
    start_control_plane: StartControlPlane,
) -> None:
    plane = start_control_plane()

    async with reading(plane, follow="true") as reader:
        await asyncio.to_thread(start_control_plane)

        assert await reader.next() is None


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        pytest.param({"after": "x"}, "InvalidParameterException", id="after"),
        pytest.param({"after": "9" * 30}, "InvalidParameterException", id="after too large"),
        pytest.param({"since": "nan"}, "InvalidParameterException", id="since"),
        pytest.param({"follow": "1"}, "InvalidParameterException", id="follow"),
        pytest.param({"colour": "red"}, "InvalidParameterException", id="unknown"),
        pytest.param({"cluster": "none"}, "ClusterNotFoundException", id="no such cluster"),
    ],
)
async def test_query_that_makes_no_sense_is_refused(
    control_plane: ControlPlane, parameters: dict[str, str], kind: str
) -> None:
    async with reading(control_plane, **parameters) as reader:
        answer = await reader.response.json(content_type=None)

    assert (reader.response.status, answer["__type"]) == (400, kind)


async def test_agent_may_not_read_the_stream(control_plane: ControlPlane) -> None:
    async with reading(control_plane, "agent") as reader:
        answer = await reader.response.json(content_type=None)

    assert answer["__type"] == "AccessDeniedException"
    assert "fargate:ListEvents" in answer["message"]


@pytest.fixture
def start_for(
    tmp_path: Path, start_control_plane: StartControlPlane
) -> Callable[..., Awaitable[ControlPlane]]:
    """Start a control plane with statements for `ci`, and an event in each of two clusters."""

    async def start(*statements: dict[str, Any]) -> ControlPlane:
        keys = tmp_path / "control-plane" / "keys.toml"
        await asyncio.to_thread(ensure_keys, keys)
        with keys.open("a") as file:
            file.write(
                f'[[key]]\naccess_key_id = "{"C" * 20}"\nsecret_access_key = "{"s" * 40}"\n'
                f'principal = "ci"\n[principal.ci]\n'
                f"policy = '''{json.dumps({'Statement': statements})}'''\n"
            )
        plane = await asyncio.to_thread(start_control_plane)
        for cluster in ("a", "b"):
            await asyncio.to_thread(plane.client().create_cluster, clusterName=cluster)
            await change_database(
                plane.database,
                "INSERT INTO events (at, cluster, kind, subject, detail)"
                f" VALUES ({NEVER_OLD}, :cluster, 'kind', 'none', :detail)",
                cluster=cluster,
                detail=json.dumps({"cluster": cluster}),
            )
        return plane

    return start


def statement(effect: str, cluster: str | None = None) -> dict[str, Any]:
    arn = f"arn:aws:ecs:us-east-1:000000000000:cluster/{cluster}"
    where = {} if cluster is None else {"Condition": {"ArnEquals": {"ecs:cluster": arn}}}
    return {"Effect": effect, "Action": "fargate:ListEvents", "Resource": "*", **where}


async def test_cluster_that_is_denied_is_left_out(
    start_for: Callable[..., Awaitable[ControlPlane]],
) -> None:
    plane = await start_for(statement("Allow"), statement("Deny", "b"))

    async with reading(plane, "ci") as reader:
        found = await reader.rest()
    async with reading(plane, "ci", cluster="b") as reader:
        refused = await reader.response.json(content_type=None)

    assert [event["detail"]["cluster"] for event in found] == ["a"]
    assert refused["__type"] == "AccessDeniedException"


async def test_caller_of_one_cluster_has_to_name_it(
    start_for: Callable[..., Awaitable[ControlPlane]],
) -> None:
    plane = await start_for(statement("Allow", "a"))

    async with reading(plane, "ci", cluster="a") as reader:
        found = await reader.rest()
    async with reading(plane, "ci") as reader:
        refused = await reader.response.json(content_type=None)

    assert [event["detail"]["cluster"] for event in found] == ["a"]
    assert refused["__type"] == "AccessDeniedException"


async def test_stream_needs_a_signature(control_plane: ControlPlane) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{control_plane.url}/events") as response,
    ):
        answer = await response.json(content_type=None)

    assert answer["__type"] == "MissingAuthenticationTokenException"


async def live(plane: ControlPlane, count: int = 1, instance_arn: str = "") -> str:
    """Let so many tasks live and end on an agent, and return its ARN."""
    agent = SimulatedAgent(plane)
    agent.instance_arn = instance_arn
    async with agent:
        job = asyncio.create_task(agent.run(exit_code=0))
        async with reading(plane, follow="true", after="latest") as reader:
            for _ in range(count):
                await asyncio.to_thread(run_task, plane.client())
                await reader.until("STOPPED")
        job.cancel()
        await asyncio.wait([job])
    return agent.instance_arn


async def history_of(plane: ControlPlane) -> list[dict[str, Any]]:
    async with reading(plane) as reader:
        return await reader.rest()
