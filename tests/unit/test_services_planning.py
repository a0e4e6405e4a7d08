"""What the scheduler decides for a service, from what is there."""

from typing import Any

import pytest

from fargate_agent.controlplane.services.planning import (
    DRAINED,
    MAX_STARTS,
    UNHEALTHY,
    plan_service,
)
from fargate_agent.controlplane.state.model import Task
from tests.fixtures.services import NEW, NOW, OLD, a_deployment, a_service, a_task, tasks_of

SCALING = f"Scaling activity initiated by (deployment {NEW})"


def stopped_ids(decision: Any) -> set[str]:
    return {stop.task_id for stop in decision.stops}


def test_new_service_gets_all_of_its_tasks() -> None:
    decision = plan_service(a_service(3), [a_deployment()], [], NOW)

    assert (decision.starts, decision.stops, decision.steady) == (3, (), False)


def test_large_service_gets_its_tasks_in_portions() -> None:
    decision = plan_service(a_service(50), [a_deployment()], [], NOW)

    assert decision.starts == MAX_STARTS


def test_tasks_that_are_coming_up_are_not_started_twice() -> None:
    tasks = [*tasks_of(NEW, 1, "PROVISIONING"), *tasks_of(NEW, 1, "PENDING")]

    decision = plan_service(a_service(2), [a_deployment()], tasks, NOW)

    assert (decision.starts, decision.steady, decision.outcome) == (0, False, None)


def test_service_whose_tasks_run_is_steady_and_its_deployment_complete() -> None:
    decision = plan_service(a_service(2), [a_deployment()], tasks_of(NEW, 2), NOW)

    assert (decision.steady, decision.outcome) == (True, "COMPLETED")


def test_service_of_no_tasks_is_steady() -> None:
    decision = plan_service(a_service(0), [a_deployment()], [], NOW)

    assert (decision.steady, decision.outcome) == (True, "COMPLETED")


def test_deployment_that_came_out_does_not_come_out_again() -> None:
    primary = a_deployment(rollout_state="COMPLETED")

    decision = plan_service(a_service(2), [primary], tasks_of(NEW, 2), NOW)

    assert (decision.steady, decision.outcome) == (True, None)


def test_task_that_has_ended_is_settled_and_replaced() -> None:
    gone = a_task(last_status="STOPPED", stop_code="EssentialContainerExited", started_at=1.0)
    gone.stopped_at = NOW

    decision = plan_service(a_service(2), [a_deployment()], [gone, a_task()], NOW)

    assert (decision.settled, decision.starts) == ((gone.id,), 1)


def test_scaling_in_ends_what_does_not_run_yet_and_then_the_newest() -> None:
    older, newer = a_task(created_at=NOW - 50), a_task(created_at=NOW - 10)
    pending = a_task(last_status="PENDING", created_at=NOW - 99)

    decision = plan_service(a_service(1), [a_deployment()], [older, newer, pending], NOW)

    assert {(stop.task_id, stop.reason) for stop in decision.stops} == {
        (newer.id, SCALING),
        (pending.id, SCALING),
    }


def test_scaling_in_passes_protected_tasks_over_until_they_are_not() -> None:
    protected = a_task(protected_until=NOW + 60)
    other = a_task(created_at=NOW - 200)
    lapsed = a_task(protected_until=NOW - 1)

    decision = plan_service(a_service(0), [a_deployment()], [protected, other, lapsed], NOW)

    assert stopped_ids(decision) == {other.id, lapsed.id}
    assert decision.look_again_at == NOW + 60


def test_scaling_in_during_a_deployment_ends_old_tasks() -> None:
    new, old = tasks_of(NEW, 2), tasks_of(OLD, 2)

    decision = plan_service(a_service(2), [a_deployment(), a_deployment(OLD)], [*new, *old], NOW)

    assert stopped_ids(decision) == {task.id for task in old}


@pytest.mark.parametrize(
    ("limits", "starts", "stops"),
    [
        pytest.param((100, 200), 4, 0, id="doubled first"),
        pytest.param((100, 150), 2, 0, id="half of them more"),
        pytest.param((50, 100), 0, 2, id="half of them fewer"),
        pytest.param((0, 100), 0, 4, id="all ended first"),
        pytest.param((50, 125), 1, 2, id="both"),
        pytest.param((75, 130), 1, 1, id="limits are rounded to the safe side"),
    ],
)
def test_deployment_begins_within_its_limits(
    limits: tuple[int, int], starts: int, stops: int
) -> None:
    deployments = [a_deployment(), a_deployment(OLD)]

    decision = plan_service(a_service(4, *limits), deployments, tasks_of(OLD, 4), NOW)

    assert (decision.starts, len(decision.stops)) == (starts, stops)


def test_as_many_old_tasks_go_as_new_ones_run() -> None:
    new = [*tasks_of(NEW, 1), *tasks_of(NEW, 3, "PENDING")]
    deployments = [a_deployment(), a_deployment(OLD)]

    decision = plan_service(a_service(4), deployments, [*new, *tasks_of(OLD, 4)], NOW)

    assert (decision.starts, len(decision.stops)) == (0, 1)


@pytest.mark.parametrize("minimum", [0, 30, 50, 100])
@pytest.mark.parametrize("maximum", [101, 125, 150, 200])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_deployment_keeps_its_limits_to_the_end_or_is_blocked(
    count: int, minimum: int, maximum: int
) -> None:
    service = a_service(count, minimum, maximum)
    deployments, tasks = [a_deployment(), a_deployment(OLD)], tasks_of(OLD, count)
    decision = plan_service(service, deployments, tasks, NOW)
    while not (decision.steady or decision.blocked):
        tasks = [task for task in tasks if task.id not in stopped_ids(decision)]
        running = len(tasks)
        tasks += tasks_of(NEW, decision.starts)
        assert running >= count * minimum / 100
        assert len(tasks) <= count * maximum / 100
        decision = plan_service(service, deployments, tasks, NOW)

    is_impossible = count * maximum // 100 == count and -(-count * minimum // 100) == count
    assert (decision.blocked, decision.steady) == (is_impossible, not is_impossible)


def test_old_tasks_that_do_not_run_go_at_once() -> None:
    pending = a_task(OLD, "PENDING")
    deployments = [a_deployment(), a_deployment(OLD)]

    decision = plan_service(a_service(2), deployments, [a_task(OLD), pending], NOW)

    assert stopped_ids(decision) == {pending.id}


def test_without_room_old_tasks_make_some_as_far_as_the_minimum_allows() -> None:
    deployments, old = [a_deployment(), a_deployment(OLD)], tasks_of(OLD, 4)

    free = plan_service(a_service(4, 50), deployments, old, NOW)
    crowded = plan_service(a_service(4, 50), deployments, old, NOW, crowded=True)
    strict = plan_service(a_service(4, 100), deployments, old, NOW, crowded=True)

    assert [len(decision.stops) for decision in (free, crowded, strict)] == [0, 2, 0]


def test_protected_old_task_keeps_its_deployment_going() -> None:
    kept = a_task(OLD, protected_until=NOW + 5)
    deployments = [a_deployment(), a_deployment(OLD)]

    decision = plan_service(a_service(1), deployments, [a_task(), kept], NOW)

    assert (decision.stops, decision.drained, decision.steady) == ((), (), False)
    assert decision.look_again_at == NOW + 5


def test_deployment_is_drained_when_its_last_task_is_stopping() -> None:
    stopping = a_task(OLD, "STOPPING", desired_status="STOPPED")
    deployments = [a_deployment(), a_deployment(OLD)]

    decision = plan_service(a_service(1), deployments, [a_task(), stopping], NOW)

    assert (decision.drained, decision.outcome) == ((OLD,), "COMPLETED")


def test_unhealthy_task_goes_when_another_runs_in_its_place() -> None:
    sick, well = a_task(health_status="UNHEALTHY"), a_task(last_status="PENDING")

    first = plan_service(a_service(1), [a_deployment()], [sick], NOW)
    second = plan_service(a_service(1), [a_deployment()], [sick, well], NOW)
    well.last_status = "RUNNING"
    third = plan_service(a_service(1), [a_deployment()], [sick, well], NOW)

    assert (first.starts, first.stops) == (1, ())
    assert (second.starts, second.stops) == (0, ())
    assert [(stop.task_id, stop.reason) for stop in third.stops] == [(sick.id, UNHEALTHY)]


def test_unhealthy_task_goes_first_when_there_may_not_be_more() -> None:
    sick = a_task(health_status="UNHEALTHY", protected_until=NOW + 60)

    decision = plan_service(a_service(1, 0, 100), [a_deployment()], [sick], NOW)

    assert (decision.starts, stopped_ids(decision)) == (0, {sick.id})


def test_task_counts_as_healthy_when_its_check_has_passed() -> None:
    deployments = [a_deployment(), a_deployment(OLD)]
    old, new = a_task(OLD), a_task(health_status="STARTING")

    waiting = plan_service(a_service(1), deployments, [old, new], NOW)
    new.health_status = "HEALTHY"
    passed = plan_service(a_service(1), deployments, [old, new], NOW)
    alone = plan_service(a_service(1), [a_deployment()], [new], NOW)

    assert (waiting.starts, waiting.stops, waiting.outcome) == (0, (), None)
    assert stopped_ids(passed) == {old.id}
    assert (alone.steady, alone.outcome) == (True, "COMPLETED")


def test_scaling_in_ends_what_is_not_healthy_first() -> None:
    older, newer = a_task(created_at=NOW - 50), a_task(created_at=NOW - 10)
    starting = a_task(created_at=NOW - 99, health_status="STARTING")

    decision = plan_service(a_service(2), [a_deployment()], [older, newer, starting], NOW)

    assert stopped_ids(decision) == {starting.id}


def test_unhealthy_task_is_left_alone_in_its_grace_period_and_not_counted_as_healthy() -> None:
    sick = a_task(health_status="UNHEALTHY", started_at=NOW - 90)
    service = a_service(1)
    service.document["healthCheckGracePeriodSeconds"] = 100

    before = plan_service(service, [a_deployment()], [sick], NOW)
    after = plan_service(service, [a_deployment()], [sick], NOW + 10)

    assert (before.starts, before.stops, before.steady) == (0, (), False)
    assert before.look_again_at == NOW + 10
    assert after.starts == 1


def test_failed_deployment_starts_nothing_and_leaves_the_old_tasks_alone() -> None:
    deployments = [a_deployment(rollout_state="FAILED"), a_deployment(OLD)]
    tasks = [*tasks_of(OLD, 1), *tasks_of(OLD, 1, "PENDING")]

    decision = plan_service(a_service(2), deployments, tasks, NOW)

    assert (decision.starts, decision.stops, decision.steady) == (0, (), False)


DRAINING = frozenset({"drained"})


def drained_tasks(count: int, last_status: str = "RUNNING", **members: Any) -> list[Task]:
    return [a_task(NEW, last_status, instance_id="drained", **members) for _ in range(count)]


@pytest.mark.parametrize(
    ("limits", "starts", "stops"),
    [
        pytest.param((100, 200), 2, 0, id="replaced first"),
        pytest.param((100, 125), 1, 0, id="one after the other"),
        pytest.param((50, 100), 0, 2, id="ended first"),
        pytest.param((75, 100), 0, 1, id="one ended first"),
    ],
)
def test_tasks_leave_a_drained_instance_within_the_limits(
    limits: tuple[int, int], starts: int, stops: int
) -> None:
    drained = drained_tasks(2)
    service, tasks = a_service(4, *limits), [*tasks_of(NEW, 2), *drained]

    decision = plan_service(service, [a_deployment()], tasks, NOW, draining=DRAINING)

    assert (decision.starts, len(decision.stops), decision.steady) == (starts, stops, False)
    assert stopped_ids(decision) <= {task.id for task in drained}


def test_task_on_a_drained_instance_goes_when_another_runs_in_its_place() -> None:
    drained = drained_tasks(1)
    tasks = [a_task(), *drained]

    decision = plan_service(a_service(1), [a_deployment()], tasks, NOW, draining=DRAINING)

    assert [(stop.task_id, stop.reason) for stop in decision.stops] == [(drained[0].id, DRAINED)]


def test_task_that_does_not_run_yet_leaves_a_drained_instance_at_once() -> None:
    pending = drained_tasks(1, "PENDING")

    decision = plan_service(a_service(1), [a_deployment()], pending, NOW, draining=DRAINING)

    assert (decision.starts, stopped_ids(decision)) == (1, {pending[0].id})


def test_protected_task_stays_on_a_drained_instance() -> None:
    protected = drained_tasks(1, protected_until=NOW + 60)
    tasks = [a_task(), *protected]

    decision = plan_service(a_service(1), [a_deployment()], tasks, NOW, draining=DRAINING)

    assert (decision.stops, decision.look_again_at) == ((), NOW + 60)


def test_without_room_elsewhere_a_drained_instance_keeps_the_minimum() -> None:
    tasks, primary = drained_tasks(4), a_deployment(rollout_state="COMPLETED")

    crowded = plan_service(a_service(4, 50), [primary], tasks, NOW, draining=DRAINING, crowded=True)
    strict = plan_service(a_service(4, 100), [primary], tasks, NOW, draining=DRAINING, crowded=True)

    assert (len(crowded.stops), len(strict.stops)) == (2, 0)


@pytest.mark.parametrize("minimum", [0, 50, 100])
@pytest.mark.parametrize("maximum", [101, 150, 200])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_draining_keeps_the_limits_to_the_end_or_is_blocked(
    count: int, minimum: int, maximum: int
) -> None:
    service, deployments = a_service(count, minimum, maximum), [a_deployment()]
    tasks = drained_tasks(count)
    decision = plan_service(service, deployments, tasks, NOW, draining=DRAINING)
    while not (decision.steady or decision.blocked):
        tasks = [task for task in tasks if task.id not in stopped_ids(decision)]
        running = len(tasks)
        tasks += tasks_of(NEW, decision.starts)
        assert running >= count * minimum / 100
        assert len(tasks) <= count * maximum / 100
        decision = plan_service(service, deployments, tasks, NOW, draining=DRAINING)

    is_impossible = count * maximum // 100 == count and -(-count * minimum // 100) == count
    assert (decision.blocked, decision.steady) == (is_impossible, not is_impossible)


def test_service_that_is_deleted_ends_everything_and_then_itself() -> None:
    service = a_service(0, status="DRAINING")
    running = a_task(protected_until=NOW + 60)

    first = plan_service(service, [a_deployment()], [running], NOW)
    running.desired_status, running.last_status = "STOPPED", "STOPPING"
    second = plan_service(service, [a_deployment()], [running], NOW)

    assert (stopped_ids(first), first.ended) == ({running.id}, False)
    assert (second.stops, second.ended) == ((), True)
