"""Whose tasks an agent takes: those of every cluster, or of the clusters that it is pinned to."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.controlplane.tasks import running
from fargate_agent.wire.messages import TaskManifestMessage
from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, add_principal
from tests.fixtures.ecs import (
    FARGATE,
    NO_AGENT,
    NO_CAPACITY,
    create_service,
    kind_of,
    reasons,
    run,
)
from tests.fixtures.events import history_of

pytestmark = pytest.mark.timeout(60)


async def make_clusters(ecs: Any, *names: str) -> None:
    for name in names:
        await asyncio.to_thread(ecs.create_cluster, clusterName=name)


async def test_task_runs_in_a_cluster_that_a_client_has_just_made(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await make_clusters(registered, "blue")

    made = (await asyncio.to_thread(run, registered, cluster="blue"))["tasks"][0]["taskArn"]
    task = await simulated_agent.take()
    await simulated_agent.bring_up(task)
    shown = (await asyncio.to_thread(registered.describe_tasks, cluster="blue", tasks=[made]))[
        "tasks"
    ][0]
    counted = await asyncio.to_thread(registered.describe_clusters, clusters=["default", "blue"])

    assert (task["arn"], task["taskClusterArn"]) == (made, shown["clusterArn"])
    assert shown["lastStatus"] == "RUNNING"
    assert [
        (c["registeredContainerInstancesCount"], c["runningTasksCount"])
        for c in counted["clusters"]
    ] == [(1, 0), (0, 1)]


async def test_service_runs_in_a_cluster_that_a_client_has_just_made(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await make_clusters(registered, "blue")
    waiter = registered.get_waiter("services_stable")

    async with at_work(simulated_agent):
        await asyncio.to_thread(create_service, registered, cluster="blue")
        await asyncio.to_thread(
            waiter.wait,
            cluster="blue",
            services=["web"],
            WaiterConfig={"Delay": 0.05, "MaxAttempts": 600},
        )


async def test_cluster_of_a_client_lists_no_agent_and_can_be_deleted(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    await make_clusters(ecs, "blue")

    listed = await asyncio.to_thread(ecs.list_container_instances, cluster="blue")
    deleted = await asyncio.to_thread(ecs.delete_cluster, cluster="blue")

    assert listed["containerInstanceArns"] == []
    assert deleted["cluster"]["status"] == "INACTIVE"


async def test_cluster_with_a_task_of_an_agent_of_another_is_not_deleted(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await make_clusters(registered, "blue")
    await asyncio.to_thread(run, registered, cluster="blue")

    with pytest.raises(ClientError) as refusal:
        await asyncio.to_thread(registered.delete_cluster, cluster="blue")

    assert kind_of(refusal) == "ClusterContainsTasksException"


@pytest.mark.parametrize(
    "serves", [pytest.param(("blue", "red"), id="pinned"), pytest.param(None, id="an older one")]
)
async def test_agent_takes_only_the_tasks_of_its_clusters(
    control_plane: ControlPlane, registered: Any, serves: tuple[str, ...] | None
) -> None:
    await make_clusters(registered, "blue", "red")
    agent = SimulatedAgent(control_plane, "blue", serves)
    async with agent:
        here = await asyncio.to_thread(run, registered, cluster="blue")
        also = await asyncio.to_thread(run, registered, cluster="red")
        there = await asyncio.to_thread(run, registered)

    assert len(here["tasks"]) == 1
    assert len(also["tasks"]) == (1 if serves else 0)
    assert reasons(there) == [NO_CAPACITY]
    assert there["failures"][0]["detail"] == NO_AGENT.replace(
        "no agent is registered", "none of 1 registered agents serves this cluster"
    )


async def test_agent_that_is_pinned_anew_moves_with_its_tasks(
    control_plane: ControlPlane, registered: Any
) -> None:
    await make_clusters(registered, "blue")
    before = SimulatedAgent(control_plane)
    async with before:
        made = (await asyncio.to_thread(run, registered))["tasks"][0]["taskArn"]
        await before.bring_up(await before.take_over())
    after = SimulatedAgent(control_plane, "blue", ("blue",))
    after.instance_arn = before.instance_arn

    async with after:
        manifest = await after.receive(TaskManifestMessage)
        await after.submit(made, "STOPPED")

    assert after.instance_arn == before.instance_arn.replace("/default/", "/blue/")
    assert [task.task_arn for task in manifest.tasks] == [made]


async def test_failure_to_place_that_repeats_is_one_event_a_minute(
    control_plane: ControlPlane, registered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_clusters(registered, "blue")
    registered.register_task_definition(**{**FARGATE, "family": "other"})

    async def count(**request: str) -> int:
        """Return how many events there are of one more request."""
        assert reasons(await asyncio.to_thread(run, registered, **request)) == [NO_CAPACITY]
        return len(await history_of(control_plane))

    counts = [await count() for _ in range(3)]
    counts += [await count(taskDefinition="other"), await count(cluster="blue"), await count()]
    monkeypatch.setattr(running, "FAILURE_AGAIN_S", 0)
    counts += [await count()]

    assert counts == [1, 1, 1, 2, 3, 3, 4]


async def test_reason_without_capacity_says_what_is_free_on_each_agent(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, overcommit=False, agent_grace_s=0.1)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    small, gone = SimulatedAgent(plane), SimulatedAgent(plane)
    await small.register(
        totalResources=[
            {"name": "CPU", "type": "INTEGER", "integerValue": 300},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 4096},
        ]
    )
    await gone.register()
    await small.connect()
    await asyncio.to_thread(run, ecs)

    refused = await asyncio.to_thread(run, ecs)
    happened = await history_of(plane)
    await small.disconnect()

    detail = refused["failures"][0]["detail"]
    ids = [agent.instance_arn[-32:] for agent in (small, gone)]
    assert f"agent {ids[0]}: 44 CPU units, 3584 MiB of memory free; " in detail
    assert f"agent {ids[1]}: not connected" in detail
    assert happened[-1]["detail-type"] == "Fargate Task Placement Failure"
    assert happened[-1]["detail"]["reason"] == f"{NO_CAPACITY}. {detail}"


def test_key_that_may_not_serve_every_cluster_registers_with_those_that_it_may(
    start_control_plane: StartControlPlane, state_dir: Any
) -> None:
    place = "arn:aws:ecs:us-east-1:000000000000:cluster"
    add_principal(
        state_dir,
        [{"Effect": "Allow", "Action": "ecs:Register*", "Resource": f"{place}/default"}],
    )
    client = start_control_plane().client("ci")

    def register(*names: str) -> Any:
        served = {"name": "CLUSTERS", "type": "STRINGSET", "stringSetValue": list(names)}
        return client.register_container_instance(cluster="default", totalResources=[served])

    for names in (["*"], ["blue"], ["default", "blue"]):
        with pytest.raises(ClientError, match="not authorized"):
            register(*names)
    assert register("default")["containerInstance"]["status"] == "ACTIVE"


async def test_client_that_may_not_see_agents_is_told_nothing_of_them(
    start_control_plane: StartControlPlane, state_dir: Any
) -> None:
    allow = [{"Effect": "Allow", "Action": "ecs:RunTask", "Resource": "*"}]
    await asyncio.to_thread(add_principal, state_dir, allow)
    plane = await asyncio.to_thread(start_control_plane, agent_grace_s=0)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    await SimulatedAgent(plane).register()

    refused = await asyncio.to_thread(run, plane.client("ci"))

    assert refused["failures"] == [{"reason": NO_CAPACITY}]
