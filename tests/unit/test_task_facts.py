"""What is known of a task and its containers."""

from datetime import timedelta

import pytest

from fargate_agent.task.status import (
    MAX_RUNS,
    ContainerFacts,
    ContainerStatus,
    HealthFacts,
    HealthStatus,
    RunFacts,
    TaskFacts,
)
from tests.fakes import MOMENT


def container(name: str = "web", **members: object) -> ContainerFacts:
    return ContainerFacts(name=name, runtime_id="r-1", **members)  # type: ignore[arg-type]


def test_first_start_and_last_end_are_told() -> None:
    later = MOMENT + timedelta(minutes=5)
    facts = container(
        runs=[
            RunFacts(created_at=MOMENT, started_at=MOMENT, finished_at=MOMENT, exit_code=1),
            RunFacts(created_at=later, started_at=later, finished_at=later, exit_code=2),
        ],
    )

    assert (facts.created_at, facts.started_at) == (MOMENT, MOMENT)
    assert (facts.finished_at, facts.exit_code) == (None, None)  # it may be restarted
    facts.status = ContainerStatus.STOPPED
    assert (facts.finished_at, facts.exit_code) == (later, 2)


def test_runs_that_are_remembered_are_the_first_and_the_last() -> None:
    facts = container()

    for minute in range(1000):
        facts.begin_run(MOMENT + timedelta(minutes=minute))

    minutes = [(run.created_at - MOMENT).seconds // 60 for run in facts.runs if run.created_at]
    assert len(minutes) == MAX_RUNS
    assert (minutes[0], minutes[1], minutes[-1]) == (0, 1000 - MAX_RUNS + 1, 999)


def test_copy_of_facts_does_not_change_with_them() -> None:
    facts = container(runs=[RunFacts()], health=HealthFacts())

    copy = facts.copy()
    facts.runs[0].exit_code = 1
    facts.begin_run(MOMENT)
    assert facts.health is not None
    facts.health.status = HealthStatus.UNHEALTHY

    assert copy == container(runs=[RunFacts()], health=HealthFacts())


UNKNOWN, HEALTHY, UNHEALTHY = HealthStatus


@pytest.mark.parametrize(
    ("essential", "other", "expected"),
    [
        ([], [], UNKNOWN),
        ([None], [HEALTHY], UNKNOWN),
        ([HEALTHY], [UNHEALTHY], HEALTHY),
        ([HEALTHY, None], [], HEALTHY),
        ([HEALTHY, UNKNOWN], [], UNKNOWN),
        ([HEALTHY, UNKNOWN, UNHEALTHY], [HEALTHY], UNHEALTHY),
    ],
)
def test_health_of_a_task_is_the_worst_of_its_essential_containers_with_a_check(
    essential: list[HealthStatus | None], other: list[HealthStatus | None], expected: HealthStatus
) -> None:
    statuses = [(status, True) for status in essential] + [(status, False) for status in other]
    facts = TaskFacts(
        containers={
            str(place): container(
                str(place),
                essential=is_essential,
                health=None if status is None else HealthFacts(status=status),
            )
            for place, (status, is_essential) in enumerate(statuses)
        }
    )

    assert facts.health == expected
