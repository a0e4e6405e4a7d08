"""The file and the webhook that the real control plane tells every event."""

import asyncio
import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.fixtures.controlplane import (
    DEADLINE_S,
    ControlPlaneProcess,
    ForkedControlPlane,
    StartControlPlane,
)
from tests.fixtures.events import Hook, history_of, live, reading
from tests.fixtures.postgres import change_database


async def lines_of(path: Path, count: int) -> list[Any]:
    """Return the lines of a file once there are so many."""
    async with asyncio.timeout(DEADLINE_S):
        while not path.exists() or len(lines := path.read_text().splitlines()) < count:
            await asyncio.sleep(0.02)
    return [json.loads(line) for line in lines]


async def ids_in(path: Path, events: list[Any]) -> list[str]:
    """Return the ids in a file once these events are all there, some of them twice perhaps."""
    wanted = {event["id"] for event in events}
    async with asyncio.timeout(DEADLINE_S):
        while (ids := {line["id"] for line in await lines_of(path, 1)}) < wanted:
            await asyncio.sleep(0.02)
    return sorted(ids)


async def test_file_gets_every_event(
    start_control_plane: StartControlPlane, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    plane = start_control_plane(events_file=path)

    await live(plane, 2)

    events = await history_of(plane)
    assert await lines_of(path, len(events)) == events


async def test_file_goes_on_after_a_restart(
    start_control_plane: StartControlPlane, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    plane = start_control_plane(events_file=path)
    await live(plane)
    await lines_of(path, len(await history_of(plane)))

    plane = await asyncio.to_thread(lambda: start_control_plane(events_file=path))
    await live(plane)

    events = await history_of(plane)
    assert await ids_in(path, events) == [event["id"] for event in events]


async def test_follower_begins_with_what_happens_from_then_on(
    start_control_plane: StartControlPlane, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    plane = start_control_plane()
    await live(plane)
    before = await history_of(plane)

    plane = await asyncio.to_thread(lambda: start_control_plane(events_file=path))
    await live(plane)

    events = await history_of(plane)
    assert await lines_of(path, len(events) - len(before)) == events[len(before) :]


async def test_no_event_is_missing_from_the_file_after_kills(
    control_plane_process: ControlPlaneProcess, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    environment = {"FARGATE_CONTROL_PLANE_EVENTS_FILE": str(path)}
    agent = ""
    for _ in range(3):
        plane = await asyncio.to_thread(lambda: control_plane_process.start(**environment))
        agent = await live(plane, instance_arn=agent)
        await asyncio.to_thread(control_plane_process.kill)

    plane = await asyncio.to_thread(lambda: control_plane_process.start(**environment))
    events = await history_of(plane)
    assert await ids_in(path, events) == [event["id"] for event in events]


async def test_webhook_gets_every_event_in_order_though_it_fails_at_first(
    start_control_plane: StartControlPlane, hook: Hook
) -> None:
    hook.answers = [lambda: web.Response(status=503), lambda: web.Response(status=429)]
    plane = await asyncio.to_thread(lambda: start_control_plane(events_webhook=hook.url))

    await live(plane)

    events = await history_of(plane)
    assert await hook.got(len(events) + 2) == [events[0], events[0], *events]


async def test_webhook_is_left_alone_as_long_as_it_asks_for(
    start_control_plane: StartControlPlane, hook: Hook
) -> None:
    hook.answers = [lambda: web.Response(status=503, headers={"Retry-After": "1"})]
    plane = await asyncio.to_thread(lambda: start_control_plane(events_webhook=hook.url))

    await live(plane)
    await hook.got(2)

    assert hook.came_at[1] - hook.came_at[0] > 0.9  # without the header: 0.5 s


async def test_follower_that_another_process_tells_is_left_to_it_while_it_lives(
    start_control_plane: StartControlPlane, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    plane = start_control_plane(events_file=path)
    await change_database(
        plane.database,
        "UPDATE followers SET holder = 'another', held_until = :until",
        until=time.time() + 100,
    )
    agent = await live(plane)
    assert not path.exists()

    await change_database(plane.database, "UPDATE followers SET held_until = 0")
    await live(plane, instance_arn=agent)

    events = await history_of(plane)
    assert await lines_of(path, len(events)) == events


async def test_of_several_processes_one_tells_a_follower_and_another_takes_over(
    tmp_path: Path, postgres_url: str
) -> None:
    path = tmp_path / "events.jsonl"
    environment = {"FARGATE_CONTROL_PLANE_EVENTS_FILE": str(path)}
    one, two = (ForkedControlPlane(tmp_path / name, postgres_url) for name in ("one", "two"))
    with contextlib.closing(one), contextlib.closing(two):
        first = await asyncio.to_thread(lambda: one.start(**environment))
        two.state_dir.mkdir()
        shutil.copy2(one.state_dir / "keys.toml", two.state_dir)
        second = await asyncio.to_thread(lambda: two.start(**environment))

        async with reading(second, follow="true") as reader:
            agent = await live(first, 2)
            followed = await reader.until("STOPPED") + await reader.until("STOPPED")
        assert await lines_of(path, len(followed)) == followed

        await asyncio.to_thread(one.kill)
        await change_database(
            second.database, "UPDATE followers SET held_until = 0"
        )  # as time does
        await live(second, instance_arn=agent)

        events = await history_of(second)
        assert await ids_in(path, events) == [event["id"] for event in events]
