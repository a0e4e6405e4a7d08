"""In which order containers start and stop, as it is planned."""

from pathlib import Path
from typing import Any

import pytest

from fargate_agent.errors import TaskDependencyError
from fargate_agent.plan import Condition, ContainerPlan, plan_task
from tests.messages import TASK_ARN, container_json, site, task_message

CHECK = {"command": ["CMD", "x"]}


def plan(*containers: dict[str, Any]) -> dict[str, ContainerPlan]:
    planned = plan_task(task_message(*containers), site(Path("/nowhere"))).containers
    return {container.name: container for container in planned}


def needs(*names: str, condition: str = "START") -> dict[str, Any]:
    return {"dependsOn": [{"containerName": name, "condition": condition} for name in names]}


def takes_volumes_from(*names: str) -> dict[str, Any]:
    return {"volumesFrom": [{"sourceContainer": name} for name in names]}


def dependencies(container: ContainerPlan) -> list[tuple[str, Condition]]:
    return [(one.container, one.condition) for one in container.depends_on]


def test_containers_stop_after_those_that_depend_on_them() -> None:
    planned = plan(
        container_json("app", **needs("db", "cache")),
        container_json("db", **needs("disk")),
        container_json("cache", **needs("disk", condition="COMPLETE")),
        container_json("disk"),
        container_json("alone"),
    )

    assert {name: set(container.stops_after) for name, container in planned.items()} == {
        "app": set(),
        "db": {"app"},
        "cache": {"app"},
        "disk": {"db", "cache"},
        "alone": set(),
    }


def test_volumes_of_another_are_there_when_it_was_created() -> None:
    planned = plan(container_json("app", **takes_volumes_from("data")), container_json("data"))

    assert list(planned) == ["data", "app"]
    assert dependencies(planned["app"]) == [("data", Condition.CREATE)]
    assert planned["data"].stops_after == ("app",)


def test_dependency_that_is_named_implies_that_it_was_created() -> None:
    both = needs("data", condition="SUCCESS") | takes_volumes_from("data")

    planned = plan(container_json("app", **both), container_json("data"))

    assert dependencies(planned["app"]) == [("data", Condition.SUCCESS)]


def test_router_of_a_firelens_log_starts_before_and_stops_after() -> None:
    log = {"logDriver": "awsfirelens", "options": {"Name": "x"}}

    planned = plan(
        container_json("app", logConfiguration=log),
        container_json("router", firelensConfiguration={"type": "fluentbit"}),
    )

    assert dependencies(planned["app"]) == [("router", Condition.START)]
    assert planned["router"].stops_after == ("app",)


@pytest.mark.parametrize(
    ("containers", "why"),
    [
        pytest.param(
            [container_json("a", **needs("b")), container_json("b", **takes_volumes_from("a"))],
            "containers a, b wait for each other and never start",
            id="circle",
        ),
        pytest.param(
            [container_json("a", **needs("a"))],
            "containers a wait for each other and never start",
            id="itself",
        ),
        pytest.param(
            [container_json("a", **takes_volumes_from("x"))],
            "container 'a' depends on container 'x', which does not exist",
            id="unknown",
        ),
        pytest.param(
            [container_json("a", **needs("b", condition="HEALTHY")), container_json("b")],
            "container 'a' depends on the health of container 'b', which has no health check",
            id="no check",
        ),
        pytest.param(
            [
                container_json("a", **needs("b", condition="HEALTHY")),
                container_json("b", healthCheck={"command": ["NONE"]}),
            ],
            "container 'a' depends on the health of container 'b', which has no health check",
            id="a check that is none",
        ),
    ],
)
def test_order_that_there_is_not_is_refused(containers: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(TaskDependencyError) as error:
        plan(*containers)

    assert error.value.reason == (
        f"TaskDependencyError: Task dependencies cannot be resolved, taskArn: {TASK_ARN}: {why}"
    )


def test_health_of_one_that_has_a_check_can_be_waited_for() -> None:
    planned = plan(
        container_json("a", **needs("b", condition="HEALTHY")),
        container_json("b", healthCheck=CHECK),
    )

    assert dependencies(planned["a"]) == [("b", Condition.HEALTHY)]
