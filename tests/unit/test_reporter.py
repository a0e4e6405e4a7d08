import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fargate_agent.acs.api import ControlPlaneError, ControlPlaneUnreachableError
from fargate_agent.acs.reporter import Reporter, render_change
from fargate_agent.plan import Replacement
from fargate_agent.task.status import (
    ContainerFacts,
    ContainerStatus,
    HealthFacts,
    HealthStatus,
    RunFacts,
    StateChange,
    StopCode,
    TaskStatus,
)
from fargate_agent.wire.changes import OURS
from tests.fakes import MOMENT
from tests.messages import CLUSTER_ARN, TASK_ARN, task_arn


class Desk:
    """A control plane that notes what it is sent, and fails as it is told."""

    def __init__(self, failures: list[Exception] | None = None) -> None:
        self.failures = failures or []
        self.requests: list[dict[str, Any]] = []
        self.acknowledged: list[StateChange] = []
        self.moved = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()
        self.in_flight: list[str] = []

    async def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        assert operation == "SubmitTaskStateChange"
        assert request["task"] not in self.in_flight, "two calls of one task at once"
        self.in_flight.append(request["task"])
        await self.hold.wait()
        self.in_flight.remove(request["task"])
        self.requests.append(copy.deepcopy(request))
        if self.failures:
            raise self.failures.pop(0)
        return {}

    async def note(self, change: StateChange) -> None:
        self.acknowledged.append(change)
        self.moved.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.acknowledged) < count:
                self.moved.clear()
                await self.moved.wait()


@asynccontextmanager
async def serving(desk: Desk) -> AsyncIterator[Reporter]:
    reporter = Reporter(desk, first_delay_s=0.001)
    job = asyncio.create_task(reporter.serve(desk.note))
    try:
        yield reporter
    finally:
        job.cancel()
        await asyncio.wait([job])


def change(status: TaskStatus, arn: str = TASK_ARN, **facts: Any) -> StateChange:
    return StateChange(task_arn=arn, cluster_arn=CLUSTER_ARN, status=status, **facts)


async def test_changes_of_a_task_arrive_in_order() -> None:
    desk = Desk()

    async with serving(desk) as reporter:
        for status in (TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.STOPPED):
            reporter.send(change(status))
        await desk.wait_for(3)

    assert [r["status"] for r in desk.requests] == ["PENDING", "RUNNING", "STOPPED"]


async def test_failed_call_is_repeated_until_it_is_taken() -> None:
    desk = Desk([ControlPlaneUnreachableError("down"), ControlPlaneError("ServerException", "no")])

    async with serving(desk) as reporter:
        reporter.send(change(TaskStatus.PENDING))
        reporter.send(change(TaskStatus.STOPPED))
        await desk.wait_for(2)

    assert [r["status"] for r in desk.requests] == ["PENDING", "PENDING", "PENDING", "STOPPED"]


async def test_refused_change_is_dropped_and_the_next_one_sent() -> None:
    desk = Desk([ControlPlaneError("InvalidParameterException", "no such task")])

    async with serving(desk) as reporter:
        reporter.send(change(TaskStatus.PENDING))
        reporter.send(change(TaskStatus.STOPPED))
        await desk.wait_for(2)

    assert [r["status"] for r in desk.requests] == ["PENDING", "STOPPED"]


async def test_control_plane_that_knows_no_code_is_sent_none() -> None:
    desk = Desk([ControlPlaneError("InvalidParameterException", 'Unknown parameter: "stopCode"')])

    async with serving(desk) as reporter:
        for count, arn in enumerate((TASK_ARN, task_arn("1" * 32)), start=1):
            ended = change(TaskStatus.STOPPED, arn, stop_code=StopCode.TASK_FAILED_TO_START)
            reporter.send(ended)
            await desk.wait_for(count)

    assert [r["status"] for r in desk.requests] == ["STOPPED"] * 3
    assert [r.get("stopCode") for r in desk.requests] == ["TaskFailedToStart", None, None]


async def test_control_plane_that_knows_no_health_is_sent_none_and_told_all_else() -> None:
    refusal = 'Unknown parameter in containers[0]: "{}", must be one of: exitCode'
    desk = Desk(
        [
            ControlPlaneError("InvalidParameterException", refusal.format(member))
            for member in ("healthStatus", "healthStatusSince")
        ]
    )
    unhealthy = container(health=HealthFacts(status=HealthStatus.UNHEALTHY, since=MOMENT))

    async with serving(desk) as reporter:
        reporter.send(change(TaskStatus.RUNNING, containers=(unhealthy,)))
        await desk.wait_for(1)
        reporter.send(
            change(TaskStatus.STOPPED, containers=(unhealthy,), stop_code=StopCode.USER_INITIATED)
        )
        await desk.wait_for(2)

    sent = [set(request["containers"][0]) & OURS for request in desk.requests]
    assert sent[0] == {"healthStatus", "healthStatusSince", "restartCount"}
    assert sent[2:] == [{"restartCount"}, {"restartCount"}]
    assert desk.requests[-1]["stopCode"] == "UserInitiated"


async def test_what_is_replaced_is_told_with_every_change_and_nothing_where_nothing_is() -> None:
    secret = Replacement(kind="secret", what="prod/db", by="the value of `fargate secrets`")
    desk = Desk([])

    async with serving(desk) as reporter:
        reporter.send(change(TaskStatus.PENDING, replacements=(secret,)))
        await desk.wait_for(1)
        reporter.send(change(TaskStatus.STOPPED))
        await desk.wait_for(2)

    assert [request.get("replacements") for request in desk.requests] == [
        [{"kind": "secret", "what": "prod/db", "by": "the value of `fargate secrets`"}],
        None,
    ]


async def test_change_that_is_refused_for_another_reason_is_dropped_with_its_code() -> None:
    desk = Desk([ControlPlaneError("InvalidParameterException", "The task was not found.")])

    async with serving(desk) as reporter:
        reporter.send(change(TaskStatus.STOPPED, stop_code=StopCode.TASK_FAILED_TO_START))
        await desk.wait_for(1)

    assert [r.get("stopCode") for r in desk.requests] == ["TaskFailedToStart"]


def test_code_stands_beside_the_reason() -> None:
    request = render_change(
        change(TaskStatus.STOPPED, reason="enough", stop_code=StopCode.USER_INITIATED)
    )

    assert (request["reason"], request["stopCode"]) == ("enough", "UserInitiated")


def container(**facts: Any) -> ContainerFacts:
    """A container that runs and was restarted twice."""
    return ContainerFacts(
        name="app",
        runtime_id="r",
        status=ContainerStatus.RUNNING,
        **{"restart_count": 2, **facts},
    )


def test_container_says_how_healthy_it_is_and_how_often_it_was_restarted() -> None:
    checked = container(
        health=HealthFacts(status=HealthStatus.HEALTHY, since=MOMENT, output="secret")
    )

    request = render_change(change(TaskStatus.RUNNING, containers=(checked,)))

    assert request["containers"] == [
        {
            "containerName": "app",
            "status": "RUNNING",
            "runtimeId": "r",
            "healthStatus": "HEALTHY",
            "healthStatusSince": MOMENT.timestamp(),
            "restartCount": 2,
        }
    ]


async def test_another_check_with_the_same_verdict_is_not_sent() -> None:
    desk = Desk()

    def checked(status: HealthStatus, output: str) -> StateChange:
        health = HealthFacts(status=status, since=MOMENT, output=output)
        return change(TaskStatus.RUNNING, containers=(container(health=health),))

    async with serving(desk) as reporter:
        reporter.send(checked(HealthStatus.HEALTHY, "1"))
        reporter.send(checked(HealthStatus.HEALTHY, "2"))
        reporter.send(checked(HealthStatus.UNHEALTHY, "3"))
        await desk.wait_for(2)

    sent = [request["containers"][0]["healthStatus"] for request in desk.requests]
    assert sent == ["HEALTHY", "UNHEALTHY"]


async def test_only_the_newest_of_what_waits_is_sent() -> None:
    desk = Desk()

    def restarted(count: int) -> StateChange:
        return change(TaskStatus.RUNNING, containers=(container(restart_count=count),))

    async with serving(desk) as reporter:
        reporter.send(change(TaskStatus.PENDING))
        for count in range(1000):
            reporter.send(restarted(count))
        reporter.send(change(TaskStatus.STOPPED))
        await desk.wait_for(3)

    assert [request["status"] for request in desk.requests] == ["PENDING", "RUNNING", "STOPPED"]
    assert desk.requests[1]["containers"][0]["restartCount"] == 999


async def test_change_that_says_nothing_new_is_not_sent() -> None:
    desk = Desk()

    async with serving(desk) as reporter:
        reporter.send(change(TaskStatus.RUNNING))
        reporter.send(change(TaskStatus.RUNNING))
        reporter.send(change(TaskStatus.PENDING))
        reporter.send(change(TaskStatus.STOPPING))
        reporter.send(change(TaskStatus.STOPPED))
        await desk.wait_for(2)

    assert [r["status"] for r in desk.requests] == ["RUNNING", "STOPPED"]


async def test_one_slow_task_does_not_hold_up_another() -> None:
    desk = Desk()
    other = task_arn("1" * 32)

    async with serving(desk) as reporter:
        desk.hold.clear()
        reporter.send(change(TaskStatus.PENDING))
        reporter.send(change(TaskStatus.PENDING, other))
        async with asyncio.timeout(5):
            while len(desk.in_flight) < 2:
                await asyncio.sleep(0)
        desk.hold.set()
        await desk.wait_for(2)

    assert {r["task"] for r in desk.requests} == {TASK_ARN, other}


def test_request_has_the_shape_of_the_api() -> None:
    container = ContainerFacts(
        name="web",
        runtime_id="r-1",
        status=ContainerStatus.STOPPED,
        runs=[RunFacts(exit_code=7)],
        reason="x" * 2000,
        image_digest="sha256:1",
    )

    request = render_change(
        change(
            TaskStatus.STOPPING,
            containers=(container,),
            attached=("arn:attachment",),
            pull_started_at=MOMENT,
        )
    )

    assert request == {
        "cluster": CLUSTER_ARN,
        "task": TASK_ARN,
        "status": "PENDING",
        "containers": [
            {
                "containerName": "web",
                "status": "STOPPED",
                "exitCode": 7,
                "imageDigest": "sha256:1",
                "reason": "x" * 1024,
                "runtimeId": "r-1",
            }
        ],
        "attachments": [{"attachmentArn": "arn:attachment", "status": "ATTACHED"}],
        "pullStartedAt": MOMENT.timestamp(),
    }
