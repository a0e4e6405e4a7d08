import re
from datetime import UTC, datetime, timedelta

import pytest

from fargate_agent.cli.events.show import EventTeller, plan_query
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.why.explain import explain
from fargate_agent.cli.why.show import parse_event

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TASK_ID = "0123456789abcdef0123456789abcdef"
ARN = f"arn:aws:ecs:us-east-1:000000000000:task/default/{TASK_ID}"


def uncoloured(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def envelope(**detail: object) -> dict[str, object]:
    return {
        "id": "00000000-0000-0000-0000-000000000007",
        "detail-type": "ECS Task State Change",
        "time": "2026-11-21T12:00:00Z",
        "resources": [ARN],
        "detail": {
            "taskArn": ARN,
            "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/web:3",
            "lastStatus": "RUNNING",
            "desiredStatus": "RUNNING",
            "updatedAt": "2026-11-21T12:00:00.123Z",
            **detail,
        },
    }


def test_task_of_an_event_has_times() -> None:
    task = parse_event(envelope(createdAt="2026-11-21T11:59:00.500Z"))

    assert task["createdAt"] == NOW - timedelta(seconds=59.5)
    assert explain(task).what == "It runs."


def test_event_is_one_line() -> None:
    line = EventTeller().render(
        envelope(
            lastStatus="STOPPED",
            desiredStatus="STOPPED",
            stopCode="UserInitiated",
            stoppedReason="enough\n\x1b[31mof it",
            containers=[{"name": "app", "exitCode": 143}, {"name": "side", "exitCode": 0}],
        )
    )

    assert "".join(uncoloured([line])) == (
        "2026-11-21T12:00:00.123Z  0123456789ab  web:3  STOPPED"
        "  enough [31mof it (UserInitiated), app: exit code 143"
    )


def test_events_say_each_thing_once() -> None:
    teller = EventTeller()
    stop = {
        "desiredStatus": "STOPPED",
        "stopCode": "UserInitiated",
        "stoppedReason": "enough",
    }
    ended = [{"name": "app", "exitCode": 143}]

    lines = uncoloured(
        [
            teller.render(envelope(**stop)),
            teller.render(envelope(**stop, lastStatus="STOPPING", containers=ended)),
            teller.render(envelope(**stop, lastStatus="STOPPED", containers=ended)),
        ]
    )

    assert [line.partition("web:3  ")[2] for line in lines] == [
        "RUNNING  is to stop, enough (UserInitiated)",
        "STOPPING  app: exit code 143",
        "STOPPED",
    ]


def test_events_say_how_healthy_containers_are_and_each_restart() -> None:
    teller = EventTeller()

    def told(health: str, restarts: int) -> str:
        app = {"name": "app", "healthStatus": health, "restartCount": restarts}
        return uncoloured([teller.render(envelope(containers=[app]))])[0].partition("web:3  ")[2]

    lines = [
        told("UNKNOWN", 0),
        told("HEALTHY", 0),
        told("UNHEALTHY", 0),
        told("UNKNOWN", 1),
        told("UNHEALTHY", 1),
        told("UNKNOWN", 2),
    ]

    assert lines == [
        "RUNNING",
        "RUNNING  app: healthy",
        "RUNNING  app: unhealthy",
        "RUNNING  app: restarted once",
        "RUNNING  app: unhealthy",
        "RUNNING  app: restarted 2 times",
    ]


def test_event_says_what_the_status_does_not() -> None:
    line = EventTeller().render(envelope(desiredStatus="STOPPED", connectivity="DISCONNECTED"))

    assert line.endswith("is to stop, nothing is heard of its agent")


def test_event_of_a_service_is_one_line_too() -> None:
    line = EventTeller().render(
        {
            **envelope(),
            "detail-type": "ECS Service Action",
            "resources": ["arn:aws:ecs:us-east-1:000000000000:service/default/shop"],
            "detail": {"eventName": "SERVICE_STEADY_STATE", "createdAt": "2026-11-21T12:00:00Z"},
        }
    )

    assert line.split() == ["2026-11-21T12:00:00Z", "shop", "SERVICE_STEADY_STATE"]


def test_options_become_a_query() -> None:
    query = plan_query(ARN, "1h", cluster="a", follow=True)

    assert (query.task, query.cluster, query.follow) == (TASK_ID, "a", True)
    assert query.since is not None
    age = datetime.now(UTC) - query.since
    assert timedelta(hours=1) <= age < timedelta(hours=1, minutes=1)


@pytest.mark.parametrize("task", ["", "task/default/"])
def test_empty_task_is_not_taken_for_every_task(task: str) -> None:
    with pytest.raises(CliError, match="names no task"):
        plan_query(task, None, cluster=None, follow=False)
