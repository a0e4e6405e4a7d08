"""Task protection: of tasks of services, for some time."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane
from tests.fixtures.ecs import FARGATE, create_service, run
from tests.fixtures.postgres import change_database

UNKNOWN = f"arn:aws:ecs:us-east-1:000000000000:task/default/{'0' * 32}"
SECOND = timedelta(seconds=15)
"""More than a request takes on a busy machine."""


@pytest.fixture
async def task(ecs: Any, simulated_agent: SimulatedAgent) -> str:
    """The ARN of the only task of a service."""
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    await asyncio.to_thread(create_service, ecs, desiredCount=1)
    arn: str = (await simulated_agent.take())["arn"]
    return arn


def protect(ecs: Any, *tasks: str, enabled: bool = True, **more: Any) -> Any:
    return ecs.update_task_protection(
        cluster="default", tasks=list(tasks), protectionEnabled=enabled, **more
    )


def protection(ecs: Any, *tasks: str) -> Any:
    return ecs.get_task_protection(cluster="default", tasks=list(tasks))


async def test_task_is_protected_for_two_hours_unless_said_otherwise(ecs: Any, task: str) -> None:
    before = await asyncio.to_thread(protection, ecs, task)

    await asyncio.to_thread(protect, ecs, task)
    usual = (await asyncio.to_thread(protection, ecs, task))["protectedTasks"][0]
    await asyncio.to_thread(protect, ecs, task, expiresInMinutes=2880)
    longest = (await asyncio.to_thread(protection, ecs, task))["protectedTasks"][0]

    now = datetime.now(UTC)
    assert before["protectedTasks"] == [{"taskArn": task, "protectionEnabled": False}]
    assert usual["protectionEnabled"]
    assert abs(usual["expirationDate"] - now - timedelta(hours=2)) < SECOND
    assert abs(longest["expirationDate"] - now - timedelta(hours=48)) < SECOND


async def test_protection_is_taken_back(ecs: Any, task: str) -> None:
    await asyncio.to_thread(protect, ecs, task)

    answer = await asyncio.to_thread(protect, ecs, task, enabled=False)

    assert answer["protectedTasks"] == [{"taskArn": task, "protectionEnabled": False}]
    assert answer["failures"] == []


async def test_protection_ends_by_itself(control_plane: ControlPlane, ecs: Any, task: str) -> None:
    await asyncio.to_thread(protect, ecs, task)
    await change_database(control_plane.database, "UPDATE tasks SET protected_until = 1")

    answer = await asyncio.to_thread(protection, ecs, task)

    assert answer["protectedTasks"] == [{"taskArn": task, "protectionEnabled": False}]


async def test_task_of_no_service_and_one_that_is_not_there_are_failures(
    ecs: Any, task: str
) -> None:
    alone = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]

    answers = [
        await asyncio.to_thread(call, ecs, task, alone, UNKNOWN) for call in (protect, protection)
    ]

    for answer in answers:
        assert [item["taskArn"] for item in answer["protectedTasks"]] == [task]
        assert answer["failures"] == [
            {"arn": alone, "reason": "TASK_NOT_VALID"},
            {"arn": UNKNOWN, "reason": "MISSING"},
        ]


@pytest.mark.parametrize(
    ("tasks", "more"),
    [
        pytest.param([], {}, id="no task"),
        pytest.param([UNKNOWN] * 11, {}, id="11 tasks"),
        pytest.param([UNKNOWN], {"expiresInMinutes": 0}, id="no time"),
        pytest.param([UNKNOWN], {"expiresInMinutes": 2881}, id="too long"),
    ],
)
def test_limits_are_kept(tasks: list[str], more: dict[str, Any], ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        protect(ecs, *tasks, **more)


def test_protection_of_100_tasks_can_be_asked_for_and_no_more(ecs: Any) -> None:
    answer = protection(ecs, *[f"{number:032x}" for number in range(100)])

    assert len(answer["failures"]) == 100
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        protection(ecs, *[f"{number:032x}" for number in range(101)])
