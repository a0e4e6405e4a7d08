"""The program: killed at any moment it forgets nothing that it has answered; it ends in order."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from fargate_agent.wire.messages import TaskManifestMessage
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import (
    DEADLINE_S,
    ControlPlane,
    ControlPlaneProcess,
    StartControlPlane,
)
from tests.fixtures.ecs import FARGATE, describe_task, details, run
from tests.fixtures.postgres import change_database

ROUNDS = 3


async def test_killed_control_plane_forgets_nothing_that_it_has_answered(
    control_plane_process: ControlPlaneProcess,
) -> None:
    generator = random.Random(7)
    answered: dict[str, list[str]] = {}
    instance_arn, tokens = "", iter(range(10_000))
    for _ in range(ROUNDS):
        plane = await asyncio.to_thread(control_plane_process.start)
        ecs = plane.client()
        await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
        agent = SimulatedAgent(plane)
        agent.instance_arn = instance_arn
        async with agent:
            instance_arn = agent.instance_arn
            work = asyncio.create_task(launch_until_it_dies(ecs, tokens, answered))
            async with asyncio.timeout(DEADLINE_S):
                while not answered:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(generator.uniform(0.05, 0.3))
            await asyncio.to_thread(control_plane_process.kill)
            last = await work

        plane = await asyncio.to_thread(control_plane_process.start)
        await check_everything_is_there(plane, answered, last)
        await asyncio.to_thread(control_plane_process.kill)


async def launch_until_it_dies(ecs: Any, tokens: Any, answered: dict[str, list[str]]) -> str:
    """Run tasks, and note what was answered; return the token of the call that got no answer."""
    while True:
        token = f"token-{next(tokens)}"
        try:
            answer = await asyncio.to_thread(run, ecs, clientToken=token, count=2)
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.EndpointConnectionError):
            return token
        answered[token] = [task["taskArn"] for task in answer["tasks"]]


async def check_everything_is_there(
    plane: ControlPlane, answered: dict[str, list[str]], last: str
) -> None:
    """The tasks live, with an address of their own; repeated calls mean the same tasks."""
    ecs = plane.client()
    for token, arns in list(answered.items())[-3:]:
        again = await asyncio.to_thread(run, ecs, clientToken=token, count=2)
        assert sorted(task["taskArn"] for task in again["tasks"]) == sorted(arns)
    listed = await asyncio.to_thread(list_all, ecs)
    assert {arn for arns in answered.values() for arn in arns} <= set(listed)
    addresses: list[str] = []
    for start in range(0, len(listed), 100):
        page = await asyncio.to_thread(ecs.describe_tasks, tasks=listed[start : start + 100])
        addresses += [
            address
            for task in page["tasks"]
            if (address := details(task).get("privateIPv4Address")) is not None
        ]
    assert len(set(addresses)) == len(addresses)
    unanswered = await asyncio.to_thread(run, ecs, clientToken=last, count=2)
    assert len(unanswered["tasks"]) in {0, 2}
    answered[last] = [task["taskArn"] for task in unanswered["tasks"]]
    if not answered[last]:
        del answered[last]


def list_all(ecs: Any) -> list[str]:
    pages = ecs.get_paginator("list_tasks").paginate()
    return [arn for page in pages for arn in page["taskArns"]]


async def test_stop_survives_a_kill_and_reaches_the_agent_afterwards(
    control_plane_process: ControlPlaneProcess,
) -> None:
    plane = await asyncio.to_thread(control_plane_process.start)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        arn = (await asyncio.to_thread(run, plane.client()))["tasks"][0]["taskArn"]
        await agent.bring_up(await agent.take_over())
        await agent.disconnect()
        await asyncio.to_thread(plane.client().stop_task, task=arn, reason="over")
    await asyncio.to_thread(control_plane_process.kill)

    plane = await asyncio.to_thread(control_plane_process.start)
    successor = SimulatedAgent(plane)
    successor.instance_arn = agent.instance_arn
    async with successor:
        manifest = await successor.receive(TaskManifestMessage)
        task = await successor.take()
        await successor.bring_down(task, exit_code=143)

    shown = await asyncio.to_thread(describe_task, plane.client(), arn)
    assert [(t.task_arn, t.desired_status) for t in manifest.tasks] == [(arn, "STOPPED")]
    assert (task["arn"], task["desiredStatus"]) == (arn, "STOPPED")
    assert (shown["lastStatus"], shown["stoppedReason"]) == ("STOPPED", "over")


async def test_task_that_no_agent_has_heard_of_ends_at_once(
    control_plane_process: ControlPlaneProcess,
) -> None:
    """An agent that hangs up between RunTask and delivery leaves a task to nobody."""
    plane = await asyncio.to_thread(control_plane_process.start)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane):
        arn = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]
        await asyncio.to_thread(control_plane_process.kill)
    # A kill can't be aimed at the moment before delivery.
    query = "UPDATE tasks SET delivery = 'WAITING' WHERE id = :id"
    await change_database(plane.database, query, id=arn[-32:])
    plane = await asyncio.to_thread(control_plane_process.start)

    stopped = await asyncio.to_thread(plane.client().stop_task, task=arn)

    assert stopped["task"]["lastStatus"] == "STOPPED"
    assert stopped["task"]["stopCode"] == "UserInitiated"
    assert stopped["task"]["attachments"][0]["status"] == "DELETED"


async def test_stopped_task_is_kept_over_a_restart_and_forgotten_in_time(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        made = (await asyncio.to_thread(run, plane.client(), count=2))["tasks"]
        kept, old = (task["taskArn"] for task in made)
        for arn in (kept, old):
            await agent.submit(arn, "STOPPED")
    query = "UPDATE tasks SET stopped_at = stopped_at - 3601 WHERE id = :id"
    await change_database(plane.database, query, id=old[-32:])

    plane = await asyncio.to_thread(start_control_plane)

    async with asyncio.timeout(10):
        while True:
            shown = await asyncio.to_thread(plane.client().describe_tasks, tasks=[kept, old])
            if shown["failures"]:
                break
    assert [task["taskArn"] for task in shown["tasks"]] == [kept]
    assert shown["failures"] == [{"arn": old, "reason": "MISSING"}]


async def test_sigterm_ends_it_in_order_while_an_agent_is_connected(
    control_plane_process: ControlPlaneProcess,
) -> None:
    plane = await asyncio.to_thread(control_plane_process.start)
    async with SimulatedAgent(plane) as agent:
        ended = asyncio.create_task(asyncio.to_thread(control_plane_process.terminate))
        await agent.wait_closed()

        assert await ended == 0


def start_badly(state_dir: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FARGATE_")}
    ended = subprocess.run(
        [sys.executable, "-m", "fargate_agent.controlplane", *arguments],
        env={**environment, "FARGATE_CONTROL_PLANE_STATE_DIR": str(state_dir), **variables},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_second_control_plane_on_a_state_directory_is_refused(
    control_plane: ControlPlane,
) -> None:
    code, text = start_badly(control_plane.state_dir, "--listen", "http://127.0.0.1:0")

    assert code != 0
    assert text.count("\n") == 1
    assert f"{control_plane.state_dir}: another control plane uses it" in text


def test_port_in_use_is_said_in_one_line(control_plane: ControlPlane, tmp_path: Path) -> None:
    code, text = start_badly(tmp_path / "other", "--listen", control_plane.url)

    assert code != 0
    assert text.count("\n") == 1
    assert f"listen {control_plane.url}: " in text


def test_unknown_setting_is_said_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "control-plane.toml"
    file.write_text("reigon = 1\n")

    code, text = start_badly(tmp_path / "state", "--config", str(file))

    assert code != 0
    assert text.count("\n") == 1
    assert "reigon" in text


def test_database_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "state.db").write_text("this is not a database, whatever its name says\n" * 100)

    code, text = start_badly(state, "--listen", "http://127.0.0.1:0")

    assert code != 0
    assert text.count("\n") == 1
    assert "state.db: file is not a database" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_ends_it_with_success(
    number: signal.Signals, control_plane_process: ControlPlaneProcess
) -> None:
    control_plane_process.start()

    assert control_plane_process.terminate(number) == 0
