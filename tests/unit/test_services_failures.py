"""Back-off and circuit breaker."""

from typing import Any

import pytest

from fargate_agent.controlplane.services.failures import delay_s, threshold
from fargate_agent.controlplane.services.planning import plan_service
from tests.fixtures.services import NOW, OLD, a_deployment, a_service, a_task

BREAKER = {"enable": True, "rollback": True}


def failed(**members: Any) -> Any:
    defaults = {"stop_code": "TaskFailedToStart", "stopped_at": NOW, "created_at": NOW - 5}
    return a_task(last_status="STOPPED", **{**defaults, **members})


def exited(ran_s: float, **members: Any) -> Any:
    return failed(
        stop_code="EssentialContainerExited",
        started_at=NOW - ran_s,
        created_at=NOW - ran_s - 1,
        **members,
    )


@pytest.mark.parametrize(
    ("failed_starts", "expected_s"),
    [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (1000, 60.0)],
)
def test_delay_doubles_up_to_a_minute(failed_starts: int, expected_s: float) -> None:
    assert delay_s(failed_starts) == expected_s


@pytest.mark.parametrize(
    "task",
    [pytest.param(failed(), id="never ran"), pytest.param(exited(2.0), id="did not run for long")],
)
def test_task_that_fails_to_start_is_replaced_later(task: Any) -> None:
    decision = plan_service(a_service(1), [a_deployment()], [task], NOW)

    assert (decision.starts, decision.look_again_at) == (0, NOW + 1)
    assert decision.record.failed_starts == 1


def test_replacement_comes_when_the_delay_is_over() -> None:
    service = a_service(1, failed_starts=3, start_not_before=NOW)

    assert plan_service(service, [a_deployment()], [], NOW - 0.1).starts == 0
    assert plan_service(service, [a_deployment()], [], NOW).starts == 1


def test_tasks_that_fail_together_count_as_one_round() -> None:
    service = a_service(5, failed_starts=2, start_not_before=NOW - 10)

    decision = plan_service(service, [a_deployment()], [failed() for _ in range(5)], NOW)

    assert decision.record.failed_starts == 3
    assert decision.record.start_not_before == NOW + 4
    assert decision.record.failed_tasks == 5


@pytest.mark.parametrize("stop_code", ["UserInitiated", "ServiceSchedulerInitiated"])
def test_task_that_somebody_ended_is_replaced_at_once(stop_code: str) -> None:
    decision = plan_service(a_service(1), [a_deployment()], [failed(stop_code=stop_code)], NOW)

    assert (decision.starts, decision.record.failed_tasks) == (1, 0)


def test_task_that_ran_for_long_ends_the_streak() -> None:
    service = a_service(1, failed_starts=5, start_not_before=NOW - 3600)

    decision = plan_service(service, [a_deployment()], [exited(1800.0)], NOW)

    assert (decision.starts, decision.record.failed_starts) == (1, 0)


def test_task_that_has_run_all_the_time_does_not_end_the_streak_of_another() -> None:
    service = a_service(2, failed_starts=5, start_not_before=NOW - 20)

    decision = plan_service(service, [a_deployment()], [a_task(), failed()], NOW)

    assert decision.record.failed_starts == 6


def test_tasks_of_an_old_deployment_do_not_count() -> None:
    tasks = [failed() for _ in range(3)]
    for task in tasks:
        task.deployment_id = OLD
    deployments = [a_deployment(), a_deployment(OLD)]

    decision = plan_service(a_service(1, breaker=BREAKER), deployments, tasks, NOW)

    assert (decision.outcome, decision.record.failed_tasks) == (None, 0)
    assert len(decision.settled) == 3


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [
        pytest.param(1, None, 3, id="at least 3"),
        pytest.param(7, None, 4, id="half, rounded up"),
        pytest.param(1000, None, 200, id="at most 200"),
        pytest.param(9, {"type": "COUNT", "value": 1}, 1, id="count"),
        pytest.param(100, {"type": "BOUNDED_PERCENT", "value": 10}, 10, id="bounded"),
        pytest.param(1000, {"type": "UNBOUNDED_PERCENT", "value": 50}, 500, id="unbounded"),
        pytest.param(1, {"type": "UNBOUNDED_PERCENT", "value": 1}, 1, id="unbounded, small"),
    ],
)
def test_threshold_follows_from_desired_count(count: int, wanted: Any, expected: int) -> None:
    breaker = BREAKER if wanted is None else {**BREAKER, "thresholdConfiguration": wanted}

    assert threshold(breaker, count) == expected


def test_circuit_breaker_fails_the_deployment_at_the_threshold() -> None:
    service = a_service(1, breaker=BREAKER)

    before = plan_service(service, [a_deployment(failed_tasks=1)], [failed()], NOW)
    at = plan_service(service, [a_deployment(failed_tasks=2)], [failed()], NOW)

    assert (before.outcome, at.outcome) == (None, "FAILED")
    assert at.starts == 0


def test_without_a_circuit_breaker_nothing_fails() -> None:
    decision = plan_service(a_service(1), [a_deployment(failed_tasks=99)], [failed()], NOW)

    assert decision.outcome is None


def test_deployment_that_came_out_can_not_fail_any_more() -> None:
    primary = a_deployment(rollout_state="COMPLETED", failed_tasks=99)

    decision = plan_service(a_service(1, breaker=BREAKER), [primary], [failed()], NOW)

    assert decision.outcome is None


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [
        pytest.param(BREAKER, 1, id="by default"),
        pytest.param({**BREAKER, "resetOnHealthyTask": False}, 3, id="unless told otherwise"),
    ],
)
def test_task_that_gets_to_run_sets_the_count_back(breaker: Any, expected: int) -> None:
    primary = a_deployment(failed_tasks=2, updated_at=NOW - 95)

    decision = plan_service(a_service(9, breaker=breaker), [primary], [a_task(), failed()], NOW)

    assert decision.record.failed_tasks == expected


def test_task_whose_check_has_not_passed_does_not_set_the_count_back() -> None:
    primary = a_deployment(failed_tasks=2, updated_at=NOW - 95)
    starting = a_task(health_status="STARTING")

    decision = plan_service(a_service(9, breaker=BREAKER), [primary], [starting, failed()], NOW)

    assert decision.record.failed_tasks == 3


def test_task_that_was_unhealthy_counts_as_failed() -> None:
    task = exited(100.0, health_status="UNHEALTHY")
    task.stop_code = "ServiceSchedulerInitiated"

    decision = plan_service(a_service(1), [a_deployment()], [task], NOW)

    assert (decision.record.failed_tasks, decision.record.failed_starts) == (1, 0)
