"""What a stolen agent key is good for: the instances that it has registered, and nothing else."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError

from fargate_agent.wire.messages import (
    AckRequest,
    PayloadMessage,
    TaskIdentifier,
    TaskManifestMessage,
    TaskStopVerificationAck,
    TaskStopVerificationMessage,
)
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, write_keys
from tests.fixtures.ecs import FARGATE, NETWORK, describe_task, kind_of, run
from tests.fixtures.requests import sign

pytestmark = pytest.mark.one_store

SECRET = "a-secret-of-some-forty-characters-in-all"
STOLEN = ("AKIASTOLENSTOLENSTOL", SECRET)
CLUSTER = "arn:aws:ecs:us-east-1:000000000000:cluster/default"


def render_key(access_key_id: str, principal: str) -> str:
    return (
        f'[[key]]\naccess_key_id = "{access_key_id}"\nsecret_access_key = "{SECRET}"\n'
        f'principal = "{principal}"\n'
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """A task of the rightful agent, and a thief who has another agent's key."""

    ecs: Any
    """The operator's client."""
    victim: SimulatedAgent
    task: str
    """ARN of a task that the victim has been handed, and hasn't started yet."""
    thief: Any
    """A client with the stolen key."""
    thiefs_plane: ControlPlane
    """The control plane, with the stolen key as that of agents."""

    async def look(self) -> tuple[Any, Any]:
        """Return the task and the instance of the victim as the operator sees them."""
        task = await asyncio.to_thread(describe_task, self.ecs, self.task)
        found = await asyncio.to_thread(
            self.ecs.describe_container_instances,
            containerInstances=[self.victim.instance_arn],
            include=["TAGS"],
        )
        return task, found["containerInstances"]


@pytest.fixture
async def scene(start_control_plane: StartControlPlane, state_dir: Path) -> AsyncIterator[Scene]:
    keys = (
        ("AKIAADMINADMINADMIN0", "admin"),
        (STOLEN[0], "agent"),
        ("AKIAVICTIMVICTIMVIC0", "agent"),
    )
    write_keys(state_dir, "".join(render_key(*key) for key in keys))
    plane = await asyncio.to_thread(start_control_plane)
    thiefs_plane = copy.copy(plane)
    thiefs_plane.keys = {**plane.keys, "agent": STOLEN}
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as victim:
        task = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]
        await victim.take()
        thief = thiefs_plane.client("agent")
        yield Scene(ecs, victim, task, thief, thiefs_plane)


async def refused(call: Any, **request: Any) -> None:
    with pytest.raises(ClientError) as refusal:
        await asyncio.to_thread(call, **request)
    assert kind_of(refusal) == "AccessDeniedException", (call, refusal.value)


async def goes_on(scene: Scene) -> None:
    """The rightful agent reports what it has done, and is believed."""
    await scene.victim.submit(scene.task, "RUNNING")
    task = await asyncio.to_thread(describe_task, scene.ecs, scene.task)
    assert task["lastStatus"] == "RUNNING"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": "STOPPED", "reason": "mine now"}, id="stop"),
        pytest.param({"status": "RUNNING"}, id="run"),
        pytest.param({"containers": [{"containerName": "app", "exitCode": 0}]}, id="container"),
        pytest.param({"executionStoppedAt": 1.0}, id="time"),
    ],
)
async def test_change_of_anothers_task_is_refused(change: dict[str, Any], scene: Scene) -> None:
    before = await scene.look()

    await refused(scene.thief.submit_task_state_change, task=scene.task, **change)

    assert await scene.look() == before
    await goes_on(scene)


@pytest.mark.parametrize("member", ["runtimeId", "imageDigest"])
async def test_report_of_any_length_is_refused(member: str, scene: Scene) -> None:
    before = await scene.look()

    with pytest.raises(ClientError, match=f"{member} can have at most 255 characters"):
        await scene.victim.submit(
            scene.task, containers=[{"containerName": "app", member: "x" * 256}]
        )
    assert await scene.look() == before

    await scene.victim.submit(scene.task, containers=[{"containerName": "app", member: "x" * 255}])
    after, _ = await scene.look()
    assert after["containers"][0][member] == "x" * 255


@pytest.mark.parametrize("member", ["integerValue", "longValue", "doubleValue"])
async def test_agent_can_not_have_less_than_nothing(member: str, scene: Scene) -> None:
    resources = [{"name": "CPU", "type": "INTEGER", member: -1}]

    with pytest.raises(ClientError, match=f"{member} can not be negative"):
        await asyncio.to_thread(scene.thief.register_container_instance, totalResources=resources)


async def test_anothers_instance_can_not_be_taken_over(scene: Scene) -> None:
    before = await scene.look()
    arn = scene.victim.instance_arn

    await refused(scene.thief.register_container_instance, containerInstanceArn=arn)
    await refused(
        scene.thief.register_container_instance,
        containerInstanceArn=arn,
        totalResources=[{"name": "CPU", "type": "INTEGER", "integerValue": 1}],
        tags=[{"key": "owner", "value": "me"}],
    )
    await refused(scene.thief.discover_poll_endpoint, containerInstance=arn)

    assert await scene.look() == before
    await goes_on(scene)


@pytest.mark.parametrize("cluster", ["default", CLUSTER])
async def test_anothers_websocket_can_not_be_opened(cluster: str, scene: Scene) -> None:
    before = await scene.look()
    parameters = {"clusterArn": cluster, "containerInstanceArn": scene.victim.instance_arn}
    url = f"{scene.thiefs_plane.url}/ws"

    async with (
        aiohttp.ClientSession() as http,
        http.get(
            url, params=parameters, headers=sign("GET", url, STOLEN, params=parameters)
        ) as answer,
    ):
        status, body = answer.status, json.loads(await answer.read())

    assert (status, body["__type"]) == (400, "AccessDeniedException")
    assert await scene.look() == before
    await goes_on(scene)


async def test_own_connection_says_nothing_for_anothers_task(scene: Scene) -> None:
    task_id = scene.task[-32:]
    claimed = TaskIdentifier(
        task_arn=scene.task, task_cluster_arn=CLUSTER, desired_status="STOPPED"
    )
    async with SimulatedAgent(scene.thiefs_plane) as thief:
        manifest = await thief.receive(TaskManifestMessage)
        before = await scene.look()
        for status in ("RUNNING", "STOPPED"):
            await thief.send(
                AckRequest(
                    message_id=f"{task_id}-{status}",
                    cluster=CLUSTER,
                    container_instance=scene.victim.instance_arn,
                )
            )
        await thief.send(TaskStopVerificationMessage(message_id="mine", stop_candidates=(claimed,)))
        await thief.receive(TaskStopVerificationAck)  # so the frames before it were read
        after = await scene.look()
        await asyncio.to_thread(scene.ecs.stop_task, task=scene.task)

        stop = await scene.victim.receive(PayloadMessage)

    assert manifest.tasks == ()
    assert after == before
    assert (stop.tasks[0]["arn"], stop.tasks[0]["desiredStatus"]) == (scene.task, "STOPPED")


async def test_own_task_does_not_move_anothers_eni(scene: Scene) -> None:
    async with SimulatedAgent(scene.thiefs_plane) as thief:
        await asyncio.to_thread(
            scene.ecs.update_container_instances_state,
            containerInstances=[scene.victim.instance_arn],
            status="DRAINING",
        )
        await asyncio.to_thread(run, scene.ecs)
        own = await thief.take()
        before = await scene.look()
        attachment = (
            f"arn:aws:ecs:us-east-1:000000000000:attachment/{before[0]['attachments'][0]['id']}"
        )

        await thief.submit(
            own["arn"], attachments=[{"attachmentArn": attachment, "status": "ATTACHED"}]
        )

        assert await scene.look() == before


async def test_agent_asks_for_its_own_tasks_what_they_ask(scene: Scene) -> None:
    arn = scene.task
    await asyncio.to_thread(
        scene.ecs.tag_resource, resourceArn=arn, tags=[{"key": "team", "value": "blue"}]
    )
    victim = scene.victim.client

    tags = await asyncio.to_thread(victim.list_tags_for_resource, resourceArn=arn)
    protection = await asyncio.to_thread(victim.get_task_protection, cluster="default", tasks=[arn])
    await refused(victim.list_tags_for_resource, resourceArn=CLUSTER)

    assert tags["tags"] == [{"key": "team", "value": "blue"}]
    assert protection["failures"] == [{"arn": arn, "reason": "TASK_NOT_VALID"}]


@pytest.mark.parametrize(
    "operation",
    [
        "describe_tasks",
        "stop_task",
        "run_task",
        "list_tasks",
        "get_task_protection",
        "update_task_protection",
        "deregister_container_instance",
        "update_container_instances_state",
        "describe_container_instances",
        "list_container_instances",
        "put_attributes",
        "tag_resource",
        "list_tags_for_resource",
        "create_cluster",
        "delete_cluster",
        "describe_clusters",
        "register_task_definition",
        "describe_task_definition",
        "put_account_setting_default",
    ],
)
async def test_operation_for_operators_is_refused(operation: str, scene: Scene) -> None:
    instance = scene.victim.instance_arn
    requests: dict[str, dict[str, Any]] = {
        "describe_tasks": {"tasks": [scene.task]},
        "stop_task": {"task": scene.task},
        "run_task": {"taskDefinition": "web", "networkConfiguration": NETWORK},
        "get_task_protection": {"cluster": "default", "tasks": [scene.task]},
        "update_task_protection": {
            "cluster": "default",
            "tasks": [scene.task],
            "protectionEnabled": True,
        },
        "deregister_container_instance": {"containerInstance": instance, "force": True},
        "update_container_instances_state": {
            "containerInstances": [instance],
            "status": "DRAINING",
        },
        "describe_container_instances": {"containerInstances": [instance]},
        "put_attributes": {"attributes": [{"name": "a", "targetId": instance}]},
        "tag_resource": {"resourceArn": scene.task, "tags": [{"key": "a", "value": "b"}]},
        "list_tags_for_resource": {"resourceArn": scene.task},
        "delete_cluster": {"cluster": "default"},
        "register_task_definition": FARGATE,
        "describe_task_definition": {"taskDefinition": "web"},
        "put_account_setting_default": {"name": "awsvpcTrunking", "value": "enabled"},
    }
    before = await scene.look()

    await refused(getattr(scene.thief, operation), **requests.get(operation, {}))

    assert await scene.look() == before
    await goes_on(scene)
