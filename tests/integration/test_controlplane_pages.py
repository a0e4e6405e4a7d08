"""ListTasks: its filters, and pages that stay right while tasks come and go."""

import asyncio
from typing import Any

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane
from tests.fixtures.ecs import create_service, kind_of, run


async def run_some(ecs: Any, count: int, **more: Any) -> list[str]:
    """Run tasks; return their ARNs, sorted."""
    answer = await asyncio.to_thread(run, ecs, count=count, **more)
    return sorted(task["taskArn"] for task in answer["tasks"])


async def read_page(ecs: Any, size: int, after: dict[str, Any] | None = None) -> Any:
    token = {"nextToken": after["nextToken"]} if after else {}
    return await asyncio.to_thread(ecs.list_tasks, maxResults=size, **token)


async def test_task_that_stays_is_listed_once_while_others_come_and_go(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    there = await run_some(registered, 8)
    for _ in there:
        await simulated_agent.take()

    first = await read_page(registered, 3)
    gone = [there[0], there[2], there[5]]  # the page before ends with one of them
    for arn in gone:
        await simulated_agent.submit(arn, "STOPPED")
    await run_some(registered, 5)
    listed, page = list(first["taskArns"]), first
    while "nextToken" in page:
        page = await read_page(registered, 3, page)
        listed += page["taskArns"]

    assert listed == sorted(set(listed))
    assert set(there) - set(gone) <= set(listed)
    assert there[5] not in listed


async def test_last_page_has_no_token_even_if_it_is_full(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    there = await run_some(registered, 4)

    first = await read_page(registered, 2)
    last = await read_page(registered, 2, first)

    assert [*first["taskArns"], *last["taskArns"]] == there
    assert "nextToken" not in last


async def test_page_holds_100_tasks_unless_said_otherwise(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    for _ in range(11):
        await run_some(registered, 10)

    first = await asyncio.to_thread(registered.list_tasks)
    last = await asyncio.to_thread(registered.list_tasks, nextToken=first["nextToken"])

    assert (len(first["taskArns"]), len(last["taskArns"])) == (100, 10)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"maxResults": 0}, id="no results"),
        pytest.param({"maxResults": 101}, id="101 results"),
        pytest.param({"nextToken": "?"}, id="no token"),
        pytest.param({"nextToken": "AA=="}, id="token with a NUL"),
        pytest.param({"nextToken": "_w=="}, id="token that is not UTF-8"),
        pytest.param({"startedBy": "me", "family": "web"}, id="family and startedBy"),
        pytest.param({"startedBy": "me", "serviceName": "web"}, id="service and startedBy"),
        pytest.param({"startedBy": "me", "launchType": "FARGATE"}, id="type and startedBy"),
    ],
)
def test_wrong_request_is_refused(request_: dict[str, Any], ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.list_tasks(**request_)


async def test_tasks_of_a_service_are_listed_by_its_name_or_arn(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await asyncio.to_thread(create_service, registered, desiredCount=2)
    there = sorted([(await simulated_agent.take())["arn"] for _ in range(2)])
    await asyncio.to_thread(create_service, registered, serviceName="other", desiredCount=1)
    await simulated_agent.take()
    arn = "arn:aws:ecs:us-east-1:000000000000:service/default/web"

    by_name = await asyncio.to_thread(registered.list_tasks, serviceName="web")
    by_arn = await asyncio.to_thread(registered.list_tasks, serviceName=arn, family="web")

    assert by_name["taskArns"] == there
    assert by_arn["taskArns"] == there


def test_tasks_of_a_service_that_never_was_can_not_be_listed(ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.ServiceNotFoundException, match=r"Service not found\."):
        ecs.list_tasks(serviceName="web")


def test_service_of_another_cluster_is_not_looked_for_in_this_one(registered: Any) -> None:
    arn = create_service(registered, desiredCount=0)["serviceArn"]

    with pytest.raises(registered.exceptions.InvalidParameterException, match="for cluster other"):
        registered.list_tasks(serviceName=arn.replace("/default/", "/other/"))


async def test_tasks_of_an_instance_are_listed(
    control_plane: ControlPlane, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    there = await run_some(registered, 2)
    other = SimulatedAgent(control_plane)
    await other.register()

    def listed(instance: str) -> Any:
        return registered.list_tasks(containerInstance=instance)["taskArns"]

    assert await asyncio.to_thread(listed, simulated_agent.instance_arn) == there
    assert await asyncio.to_thread(listed, simulated_agent.instance_arn[-32:]) == there
    assert await asyncio.to_thread(listed, other.instance_arn) == []


def test_tasks_of_daemons_are_not_supported(ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.ClientError, match="Daemons") as refusal:
        ecs.list_tasks(daemonName="d")

    assert kind_of(refusal) == "UnsupportedFeatureException"


def test_clusters_come_in_pages_while_one_is_deleted(ecs: Any) -> None:
    for name in ("a", "b", "c"):
        ecs.create_cluster(clusterName=name)

    first = ecs.list_clusters(maxResults=2)
    ecs.delete_cluster(cluster="b")
    second = ecs.list_clusters(maxResults=2, nextToken=first["nextToken"])

    names = [arn.rpartition("/")[2] for arn in second["clusterArns"]]
    assert names == ["c", "default"]
