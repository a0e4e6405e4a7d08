"""The agents' websocket: delivery until acknowledged, manifest, stop verification, heartbeats."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.controlplane.state.model import Task
from fargate_agent.controlplane.tasks import lifecycle
from fargate_agent.wire.messages import (
    AckRequest,
    ErrorMessage,
    HeartbeatAckRequest,
    HeartbeatMessage,
    PayloadMessage,
    TaskIdentifier,
    TaskManifestMessage,
    TaskStopVerificationAck,
    TaskStopVerificationMessage,
)
from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import FARGATE, describe_task, run


async def run_one(ecs: Any) -> str:
    answer = await asyncio.to_thread(run, ecs)
    return str(answer["tasks"][0]["taskArn"])


async def test_message_is_sent_again_until_it_is_acknowledged(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, resend_s=0.1)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        arn = await run_one(ecs)

        first = await agent.receive(PayloadMessage)
        again = await agent.receive(PayloadMessage)
        await agent.ack(again)
        await wait_until_taken(agent, arn)  # until then it may come once more
        await asyncio.to_thread(ecs.stop_task, task=arn)
        last = await agent.take()

        assert first.message_id == again.message_id
        assert (last["arn"], last["desiredStatus"]) == (arn, "STOPPED")


async def test_acknowledgement_that_was_not_written_is_asked_for_again(
    start_control_plane: StartControlPlane,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    note_start_acked, written = lifecycle.note_start_acked, list[str]()

    def fail_at_first(task: Task) -> None:
        if f"task {task.id}: acknowledged, which was not written" not in caplog.text:
            raise RuntimeError("not foreseen")
        note_start_acked(task)
        written.append(task.id)

    monkeypatch.setattr(lifecycle, "note_start_acked", fail_at_first)
    plane = await asyncio.to_thread(start_control_plane, resend_s=0.1)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        arn = await run_one(plane.client())
        async with asyncio.timeout(10), at_work(agent):
            while not written:
                await asyncio.sleep(0.02)
        await wait_until_taken(agent, arn)


async def wait_until_taken(agent: SimulatedAgent, arn: str) -> None:
    """Connect anew until the task is what the agent answers for."""
    async with asyncio.timeout(10):
        manifest: list[str] = []
        while manifest != [arn]:
            await agent.disconnect()
            await agent.connect()
            manifest = [t.task_arn for t in (await agent.receive(TaskManifestMessage)).tasks]


async def test_unacknowledged_task_is_sent_to_the_next_connection(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = await run_one(registered)
    await simulated_agent.receive(PayloadMessage)
    await simulated_agent.disconnect()

    await simulated_agent.connect()

    assert (await simulated_agent.take())["arn"] == arn


async def test_manifest_has_the_tasks_that_live_and_a_later_timeline(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    before = await simulated_agent.receive(TaskManifestMessage)
    kept, ended = await run_one(registered), await run_one(registered)
    for _ in range(2):
        await simulated_agent.take_over()
    await simulated_agent.submit(ended, "STOPPED")
    await simulated_agent.disconnect()

    await simulated_agent.connect()
    manifest = await simulated_agent.receive(TaskManifestMessage)

    assert before.tasks == ()
    assert [task.task_arn for task in manifest.tasks] == [kept]
    assert manifest.timeline > before.timeline


async def test_manifest_leaves_out_what_was_never_acknowledged(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await simulated_agent.receive(TaskManifestMessage)
    arn = await run_one(registered)
    await simulated_agent.receive(PayloadMessage)
    await simulated_agent.disconnect()

    await simulated_agent.connect()
    manifest = await simulated_agent.receive(TaskManifestMessage)

    assert manifest.tasks == ()
    assert (await simulated_agent.take())["arn"] == arn


async def test_stop_is_sent_again_to_an_agent_that_was_away(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = await run_one(registered)
    await simulated_agent.take()
    await simulated_agent.disconnect()
    stopped = await asyncio.to_thread(registered.stop_task, task=arn)

    await simulated_agent.connect()
    task = await simulated_agent.take()

    assert stopped["task"]["lastStatus"] == "PROVISIONING"
    assert (task["arn"], task["desiredStatus"]) == (arn, "STOPPED")


async def test_stop_that_an_agent_has_taken_over_shows_as_stopping(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = await run_one(registered)
    await simulated_agent.bring_up(await simulated_agent.take())
    await asyncio.to_thread(registered.stop_task, task=arn)
    await simulated_agent.take()

    async with asyncio.timeout(10):
        while True:
            shown = await asyncio.to_thread(describe_task, registered, arn)
            if shown["lastStatus"] != "RUNNING":
                break

    assert (shown["lastStatus"], "stoppingAt" in shown) == ("STOPPING", True)


async def test_only_tasks_that_are_not_wanted_are_to_be_stopped(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    wanted, ended = await run_one(registered), await run_one(registered)
    for _ in range(2):
        await simulated_agent.take()
    await simulated_agent.submit(ended, "STOPPED")
    unknown = ended[:-32] + "f" * 32

    await simulated_agent.send(
        TaskStopVerificationMessage(
            message_id="m-1",
            stop_candidates=tuple(
                TaskIdentifier(task_arn=arn, task_cluster_arn="c", desired_status="STOPPED")
                for arn in (wanted, ended, unknown)
            ),
        )
    )
    answer = await simulated_agent.receive(TaskStopVerificationAck)

    assert answer.message_id == "m-1"
    assert [task.task_arn for task in answer.stop_tasks] == [ended, unknown]


async def test_heart_beats_and_a_silent_agent_is_dropped(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, heartbeat_s=0.3, agent_read_timeout_s=2)
    async with SimulatedAgent(plane) as agent:
        for _ in range(8):
            beat = await agent.receive(HeartbeatMessage)
            await agent.send(HeartbeatAckRequest(message_id=beat.message_id))

        await agent.wait_closed()


async def test_new_connection_takes_the_place_of_the_old_one_at_once(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, resend_s=600)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        other = SimulatedAgent(plane)
        other.instance_arn = agent.instance_arn

        await other.connect()
        await agent.wait_closed()
        arn = await run_one(plane.client())

        assert (await other.take())["arn"] == arn
        await other.disconnect()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{", id="not JSON"),
        pytest.param('{"type":"AckRequest","message":{}}', id="member missing"),
        pytest.param("[" * 100_000, id="deep"),
    ],
)
async def test_unreadable_frame_is_answered_and_the_connection_lives(
    text: str, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await simulated_agent.send_text(text)

    await simulated_agent.receive(ErrorMessage)
    arn = await run_one(registered)
    assert (await simulated_agent.take())["arn"] == arn


async def test_frames_that_mean_nothing_here_are_passed_over(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await simulated_agent.send_text('{"type":"FromTheFuture","message":{}}')
    await simulated_agent.send(AckRequest(message_id="?", cluster="c", container_instance="i"))

    arn = await run_one(registered)

    assert (await simulated_agent.take())["arn"] == arn


async def test_instance_that_the_control_plane_has_forgotten_is_taken_up(
    control_plane: ControlPlane,
) -> None:
    agent = SimulatedAgent(control_plane)
    agent.instance_arn = f"arn:aws:ecs:us-east-1:000000000000:container-instance/default/{'a' * 32}"

    await agent.register()
    await agent.connect()

    assert agent.instance_arn.endswith("a" * 32)
    assert (await agent.receive(TaskManifestMessage)).tasks == ()
    await agent.disconnect()


async def test_report_of_an_unknown_task_is_refused_for_good(
    simulated_agent: SimulatedAgent,
) -> None:
    with pytest.raises(ClientError) as error:
        await simulated_agent.submit(
            f"arn:aws:ecs:us-east-1:000000000000:task/default/{'0' * 32}", "RUNNING"
        )

    assert error.value.response["Error"]["Code"] == "InvalidParameterException"


async def test_cluster_counts_its_tasks_and_agents(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await run_one(registered)
    await run_one(registered)
    await simulated_agent.bring_up(await simulated_agent.take())

    cluster = (await asyncio.to_thread(registered.describe_clusters))["clusters"][0]

    assert (cluster["runningTasksCount"], cluster["pendingTasksCount"]) == (1, 1)
    assert cluster["registeredContainerInstancesCount"] == 1
