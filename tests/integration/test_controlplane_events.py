"""`GET /events` of the real control plane."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fargate_agent.controlplane.history import retention, stream
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, add_principal
from tests.fixtures.events import Reader, number, reading, run_task
from tests.fixtures.postgres import change_database

NEVER_OLD = 4_000_000_000
"""Seconds since 1970: what is old is forgotten."""


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


async def insert_large_events(plane: ControlPlane) -> None:
    """Make 300 events, more than the buffers of a connection hold."""
    row = f"({NEVER_OLD}, 'default', 'large', 'none', :detail)"
    await change_database(
        plane.database,
        f"INSERT INTO events (at, cluster, kind, subject, detail) VALUES {', '.join([row] * 300)}",
        detail=json.dumps({"text": "x" * 60_000}),
    )


async def test_reader_that_does_not_read_holds_up_nobody_and_is_given_up(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_TIMEOUT_S", 1)
    monkeypatch.setattr(stream, "PAGE_ROWS", 10)  # what a reader has so long for
    await insert_large_events(control_plane)

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


async def test_stream_that_can_not_be_read_is_refused_as_any_request(
    control_plane: ControlPlane,
) -> None:
    await change_database(control_plane.database, "ALTER TABLE events RENAME TO lost")

    async with reading(control_plane, after="latest") as reader:
        said = await reader.response.json(content_type=None)

    assert (reader.response.status, said["__type"]) == (500, "ServerException")
    assert reader.response.headers["x-amzn-RequestId"] in said["message"]


async def test_stream_whose_rest_can_not_be_read_breaks_off(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream, "PAGE_ROWS", 50)
    await insert_large_events(control_plane)

    async with reading(control_plane) as reader:
        await change_database(control_plane.database, "ALTER TABLE events RENAME TO lost")
        with pytest.raises(aiohttp.ClientError):
            await reader.response.content.read()

    said = [record.message for record in caplog.records if record.name != retention.__name__]
    assert [text[:21] for text in said] == ["events can't be read:"]


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
    state_dir: Path, start_control_plane: StartControlPlane
) -> Callable[..., Awaitable[ControlPlane]]:
    """Start a control plane with statements for `ci`, and an event in each of two clusters."""

    async def start(*statements: dict[str, Any]) -> ControlPlane:
        await asyncio.to_thread(add_principal, state_dir, statements)
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
