"""Which capacity provider tasks name, as clients see it."""

import asyncio
from collections import Counter
from typing import Any

from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.ecs import NETWORK, running, wait_for_service

EVENLY = [
    {"capacityProvider": "FARGATE", "weight": 1},
    {"capacityProvider": "FARGATE_SPOT", "weight": 1},
]
BASE = [
    {"capacityProvider": "FARGATE", "base": 1},
    {"capacityProvider": "FARGATE_SPOT", "weight": 1},
]


def providers(tasks: list[dict[str, Any]]) -> list[str]:
    return [task["capacityProviderName"] for task in tasks]


async def run(ecs: Any, strategy: list[Any], count: int) -> list[dict[str, Any]]:
    answer = await asyncio.to_thread(
        ecs.run_task,
        taskDefinition="web",
        capacityProviderStrategy=strategy,
        count=count,
        networkConfiguration=NETWORK,
    )
    tasks: list[dict[str, Any]] = answer["tasks"]
    return tasks


async def test_tasks_of_one_request_are_shared_by_base_and_weight(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    evenly = await run(registered, EVENLY, 4)
    with_base = await run(registered, BASE, 3)

    assert Counter(providers(evenly)) == {"FARGATE": 2, "FARGATE_SPOT": 2}
    assert providers(with_base) == ["FARGATE", "FARGATE_SPOT", "FARGATE_SPOT"]


async def test_tasks_of_a_service_are_shared_among_all_that_it_has(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    async with at_work(simulated_agent):
        await asyncio.to_thread(
            registered.create_service,
            serviceName="web",
            taskDefinition="web",
            desiredCount=1,
            capacityProviderStrategy=BASE,
            networkConfiguration=NETWORK,
        )
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        first = await asyncio.to_thread(running, registered)
        await asyncio.to_thread(registered.update_service, service="web", desiredCount=2)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        both = await asyncio.to_thread(running, registered)

    assert providers(first) == ["FARGATE"]
    assert sorted(providers(both)) == ["FARGATE", "FARGATE_SPOT"]
