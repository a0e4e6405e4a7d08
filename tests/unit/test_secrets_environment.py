"""Of several values of one variable, the strongest counts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ImageConfig
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, TaskPlan, plan_task
from fargate_agent.runtime.spec import plan_environment
from fargate_agent.secrets.environment import add_to_environment
from tests.messages import container_json, site, task_message

URI = "ECS_CONTAINER_METADATA_URI_V4"


def plan(**members: Any) -> TaskPlan:
    return plan_task(task_message(container_json(**members)), site(Path("/nowhere")))


def environment(
    task: TaskPlan, container: ContainerPlan, image: tuple[str, ...] = ()
) -> dict[str, str]:
    lines = plan_environment(task, container, ImageConfig(environment=image))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize(
    ("sources", "wins"),
    [
        pytest.param({"image", "second"}, "second", id="file over image"),
        pytest.param({"image", "second", "first"}, "first", id="first file"),
        pytest.param({"first", "environment"}, "environment", id="environment over file"),
        pytest.param({"environment", "secret"}, "secret", id="secret over environment"),
        pytest.param({"image", "first", "second", "environment", "secret"}, "secret", id="all"),
        pytest.param({"image"}, "image", id="image alone"),
    ],
)
def test_strongest_source_wins(sources: set[str], wins: str) -> None:
    def one(source: str, name: str = "X") -> dict[str, str]:
        return {name: source} if source in sources else {}

    task = plan(environment=one("environment"))
    completed = add_to_environment(task.containers[0], one("secret"), [one("first"), one("second")])

    image = tuple(f"{name}={value}" for name, value in one("image").items())
    assert environment(task, completed, image)["X"] == wins


@pytest.mark.parametrize("name", [URI, "ECS_AGENT_URI", "AWS_EXECUTION_ENV"])
def test_nothing_replaces_what_the_agent_adds(name: str) -> None:
    task = plan(environment={name: "mine"})
    (container,) = task.containers

    completed = add_to_environment(container, {name: "secret"}, [{name: "file"}])

    given = environment(task, completed, (f"{name}=image",))
    assert given[name] == environment(task, container)[name]
    assert given[name] not in {"mine", "secret", "file", "image"}


@pytest.mark.parametrize(
    ("files", "secrets", "image", "regions"),
    [
        pytest.param({}, {}, (), {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}),
        pytest.param({"AWS_REGION": "f"}, {}, (), {"AWS_REGION": "f"}, id="file"),
        pytest.param({}, {"AWS_DEFAULT_REGION": "s"}, (), {"AWS_DEFAULT_REGION": "s"}, id="secret"),
        pytest.param({}, {}, ("AWS_REGION=i",), {"AWS_REGION": "i"}, id="image"),
        pytest.param({}, {}, ("AWS_DEFAULT_REGION=i",), {"AWS_DEFAULT_REGION": "i"}, id="default"),
        pytest.param(
            {"AWS_REGION": "f"},
            {},
            ("AWS_DEFAULT_REGION=i",),
            {"AWS_REGION": "f", "AWS_DEFAULT_REGION": "i"},
            id="both",
        ),
    ],
)
def test_region_is_added_where_nobody_else_says_one(
    files: dict[str, str], secrets: dict[str, str], image: tuple[str, ...], regions: dict[str, str]
) -> None:
    task = plan()

    completed = add_to_environment(task.containers[0], secrets, [files])

    given = environment(task, completed, image)
    assert {name: value for name, value in given.items() if "REGION" in name} == regions


def test_region_of_the_definition_is_not_replaced_by_that_of_the_image() -> None:
    task = plan(environment={"AWS_REGION": "mine"})

    given = environment(task, task.containers[0], ("AWS_DEFAULT_REGION=image",))

    assert given["AWS_REGION"] == "mine"
    assert given["AWS_DEFAULT_REGION"] == "image"


def test_plan_names_what_a_container_is_given_and_holds_no_value() -> None:
    task = plan(
        secrets=[{"name": "KEY", "valueFrom": "/key"}],
        environmentFiles=[{"value": "arn:aws:s3:::b/1.env", "type": "s3"}],
    )
    (container,) = task.containers

    assert container.secrets == {"KEY": "/key"}
    assert container.environment_files == ("arn:aws:s3:::b/1.env",)
    assert container.refers
    assert "KEY" not in container.environment
    assert not replace(container, secrets={}, environment_files=()).refers


@pytest.mark.parametrize(
    ("character", "what"), [("\0", "a NUL character"), ("\ud800", "half a character")]
)
def test_secret_that_no_variable_can_have_is_refused_without_showing_it(
    character: str, what: str
) -> None:
    (container,) = plan().containers

    with pytest.raises(ResourceInitializationError) as error:
        add_to_environment(container, {"KEY": f"geheim{character}"}, [])

    assert error.value.reason == (
        f"ResourceInitializationError: the secret KEY has {what}, which no variable can have"
    )
