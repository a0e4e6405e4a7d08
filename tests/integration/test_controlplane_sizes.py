"""The largest tasks, which AWS has in some regions only."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import StartControlPlane
from tests.fixtures.ecs import FARGATE, run

pytestmark = pytest.mark.one_store

LARGEST = {**FARGATE, "cpu": "32 vCPU", "memory": "60 GB"}
SIZE = {"cpu": "32768", "memory": "61440"}
REFUSAL = "No Fargate configuration exists for given values: 32768 CPU, 61440 memory."


def register(ecs: Any, **changes: Any) -> Any:
    return ecs.register_task_definition(**{**LARGEST, **changes})["taskDefinition"]


def test_largest_size_is_there_unless_it_is_switched_off(
    start_control_plane: StartControlPlane,
) -> None:
    before = register(start_control_plane().client())
    ecs = start_control_plane(has_32_vcpus=False).client()
    other = register(ecs, family="other", requiresCompatibilities=[])
    register(ecs, family="small", cpu="256", memory="512")

    assert {member: before[member] for member in SIZE} == SIZE
    assert "FARGATE" not in other["compatibilities"]
    with pytest.raises(ClientError, match=REFUSAL):
        register(ecs)
    with pytest.raises(ClientError, match=REFUSAL):
        run(ecs, taskDefinition="web")
    with pytest.raises(ClientError, match=REFUSAL):
        run(ecs, taskDefinition="small", overrides=SIZE)


async def test_relaxed_cluster_has_it_all_the_same(start_control_plane: StartControlPlane) -> None:
    plane = await asyncio.to_thread(
        lambda: start_control_plane(has_32_vcpus=False, relaxed_clusters=("default",))
    )
    ecs = plane.client()
    await asyncio.to_thread(register, ecs, cpu="256", memory="512")
    async with SimulatedAgent(plane):
        task = (await asyncio.to_thread(run, ecs, overrides=SIZE))["tasks"][0]

    assert {member: task[member] for member in SIZE} == SIZE
    assert {"name": "fargate.relaxed", "value": "true"} in task["attributes"]
