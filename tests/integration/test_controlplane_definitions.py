"""Task definitions by real clients: registered, described, listed, taken back and deleted."""

import asyncio
from typing import Any

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.ecs import APP, FARGATE, NETWORK, refusal

PREFIX = "arn:aws:ecs:us-east-1:000000000000:task-definition/"


def register(ecs: Any, *families: str) -> None:
    for family in families:
        ecs.register_task_definition(**{**FARGATE, "family": family})


def test_definition_has_what_aws_adds(ecs: Any) -> None:
    answer = ecs.register_task_definition(**FARGATE, tags=[{"key": "k", "value": "v"}])

    found = answer["taskDefinition"]
    assert answer["tags"] == [{"key": "k", "value": "v"}]
    assert found["registeredBy"] == "arn:aws:iam::000000000000:user/admin"
    assert found["registeredAt"].timestamp() > 0
    assert found["compatibilities"] == ["EC2", "FARGATE", "MANAGED_INSTANCES"]
    assert {"name": "ecs.capability.task-eni"} in found["requiresAttributes"]
    assert (found["taskDefinitionArn"], found["status"]) == (f"{PREFIX}web:1", "ACTIVE")


def test_definition_that_was_described_can_be_registered_again(ecs: Any) -> None:
    register(ecs, "web")
    described = ecs.describe_task_definition(taskDefinition="web")["taskDefinition"]
    computed = {
        "taskDefinitionArn",
        "revision",
        "status",
        "registeredAt",
        "registeredBy",
        "compatibilities",
        "requiresAttributes",
    }
    request = {name: member for name, member in described.items() if name not in computed}

    again = ecs.register_task_definition(**request)["taskDefinition"]

    assert {name: again[name] for name in request} == request


def test_tags_are_described_when_asked_for(ecs: Any) -> None:
    ecs.register_task_definition(**FARGATE, tags=[{"key": "k", "value": "v"}])

    plain = ecs.describe_task_definition(taskDefinition="web")
    tagged = ecs.describe_task_definition(taskDefinition="web", include=["TAGS"])

    assert "tags" not in plain
    assert tagged["tags"] == [{"key": "k", "value": "v"}]


def test_deregistered_revision_is_inactive_and_still_described(ecs: Any) -> None:
    register(ecs, "web", "web")

    gone = ecs.deregister_task_definition(taskDefinition="web:2")["taskDefinition"]

    assert (gone["status"], gone["revision"]) == ("INACTIVE", 2)
    assert gone["deregisteredAt"] >= gone["registeredAt"]
    assert ecs.describe_task_definition(taskDefinition="web:2")["taskDefinition"] == gone
    assert ecs.describe_task_definition(taskDefinition="web")["taskDefinition"]["revision"] == 1


def test_deregistering_may_be_repeated(ecs: Any) -> None:
    register(ecs, "web")

    first, second = (
        ecs.deregister_task_definition(taskDefinition=f"{PREFIX}web:1")["taskDefinition"]
        for _ in range(2)
    )

    assert first == second


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param("web", ("ClientException", "Revision is missing."), id="family"),
        pytest.param(
            "web:x",
            ("InvalidParameterException", "Invalid revision number. Number: x"),
            id="revision that is no number",
        ),
        pytest.param(
            "web:0",
            ("InvalidParameterException", "Invalid revision number. Number: 0"),
            id="revision zero",
        ),
        pytest.param(
            "web:7",
            ("ClientException", "The specified task definition does not exist."),
            id="no such revision",
        ),
    ],
)
def test_deregistering_needs_a_revision(
    reference: str, expected: tuple[str, str], ecs: Any
) -> None:
    register(ecs, "web")

    assert refusal(ecs.deregister_task_definition, taskDefinition=reference) == expected


def test_family_without_active_revision_can_not_be_described(ecs: Any) -> None:
    register(ecs, "web")
    ecs.deregister_task_definition(taskDefinition="web:1")

    found = refusal(ecs.describe_task_definition, taskDefinition="web")

    assert found == ("ClientException", "Unable to describe task definition.")


async def test_inactive_definition_makes_no_tasks_and_its_tasks_go_on(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    request = {"taskDefinition": "web:1", "networkConfiguration": NETWORK, "launchType": "FARGATE"}
    await asyncio.to_thread(register, ecs, "web")
    made = await asyncio.to_thread(ecs.run_task, **request)
    arn = made["tasks"][0]["taskArn"]

    await asyncio.to_thread(ecs.deregister_task_definition, taskDefinition="web:1")

    found = await asyncio.to_thread(refusal, ecs.run_task, **request)
    described = await asyncio.to_thread(ecs.describe_tasks, tasks=[arn])
    assert found == ("ClientException", "TaskDefinition is inactive")
    assert described["tasks"][0]["desiredStatus"] == "RUNNING"


def test_deleted_revision_stays_and_its_number_is_never_used_again(ecs: Any) -> None:
    register(ecs, "web")
    ecs.deregister_task_definition(taskDefinition="web:1")

    deleted = ecs.delete_task_definitions(taskDefinitions=["web:1"])
    register(ecs, "web")

    gone = deleted["taskDefinitions"][0]
    assert deleted["failures"] == []
    assert (gone["status"], "deleteRequestedAt" in gone) == ("DELETE_IN_PROGRESS", True)
    assert ecs.describe_task_definition(taskDefinition="web:1")["taskDefinition"] == gone
    assert ecs.describe_task_definition(taskDefinition="web")["taskDefinition"]["revision"] == 2


def test_deletion_that_can_not_be_is_a_failure_with_its_reason(ecs: Any) -> None:
    register(ecs, "web", "web")
    ecs.deregister_task_definition(taskDefinition="web:1")

    answer = ecs.delete_task_definitions(taskDefinitions=["web:1", "web:2", "web:9", "web"])

    assert [item["revision"] for item in answer["taskDefinitions"]] == [1]
    assert answer["failures"] == [
        {
            "arn": f"{PREFIX}web:2",
            "reason": "The specified task definition is still in ACTIVE status. Please deregister "
            "the target and try again.",
        },
        {
            "arn": f"{PREFIX}web:9",
            "reason": "The specified task definition does not exist. Specify a valid account, "
            "family, revision and try again.",
        },
        {
            "arn": "web",
            "reason": "The specified task definition identifier is invalid. Specify a valid name "
            "or ARN and try again.",
        },
    ]


def test_at_most_ten_revisions_are_deleted_at_once(ecs: Any) -> None:
    kind, _ = refusal(
        ecs.delete_task_definitions, taskDefinitions=[f"web:{number}" for number in range(1, 12)]
    )

    assert kind == "InvalidParameterException"


@pytest.mark.parametrize(
    ("request_change", "expected"),
    [
        pytest.param({}, ["a:2", "a:3", "ab:1"], id="active"),
        pytest.param({"sort": "DESC"}, ["ab:1", "a:3", "a:2"], id="newest first"),
        pytest.param({"familyPrefix": "a"}, ["a:2", "a:3"], id="one family"),
        pytest.param({"status": "INACTIVE"}, ["b:1"], id="inactive"),
        pytest.param({"status": "DELETE_IN_PROGRESS"}, ["a:1"], id="deleted"),
    ],
)
def test_revisions_are_listed_by_family_and_status(
    request_change: dict[str, str], expected: list[str], ecs: Any
) -> None:
    register(ecs, "a", "a", "a", "ab", "b")
    for name in ("a:1", "b:1"):
        ecs.deregister_task_definition(taskDefinition=name)
    ecs.delete_task_definitions(taskDefinitions=["a:1"])

    found = ecs.list_task_definitions(**request_change)["taskDefinitionArns"]

    assert [arn.removeprefix(PREFIX) for arn in found] == expected


@pytest.mark.parametrize("sort", ["ASC", "DESC"])
def test_pages_of_revisions_lose_none_while_others_vanish(sort: str, ecs: Any) -> None:
    register(ecs, *["web"] * 12)
    expected = [f"web:{number}" for number in range(1, 13)]
    if sort == "DESC":
        expected.reverse()

    first = ecs.list_task_definitions(maxResults=5, sort=sort)
    last = first["taskDefinitionArns"][-1]
    ecs.deregister_task_definition(taskDefinition=last)
    rest = ecs.list_task_definitions(nextToken=first["nextToken"], sort=sort)

    found = [*first["taskDefinitionArns"], *rest["taskDefinitionArns"]]
    assert [arn.removeprefix(PREFIX) for arn in found] == expected
    assert "nextToken" not in rest


@pytest.mark.one_store
@pytest.mark.parametrize(
    "request_",
    [{"nextToken": "x"}, {"maxResults": 0}, {"maxResults": 101}],
    ids=["token", "empty page", "large page"],
)
def test_page_that_can_not_be_is_refused(request_: dict[str, Any], ecs: Any) -> None:
    kind, _ = refusal(ecs.list_task_definitions, **request_)

    assert kind == "InvalidParameterException"


@pytest.mark.parametrize(
    ("request_change", "expected"),
    [
        pytest.param({}, ["Web", "web", "web_2", "webs"], id="all"),
        pytest.param({"status": "ALL"}, ["Web", "web", "web_2", "webs"], id="said to be all"),
        pytest.param({"status": "ACTIVE"}, ["Web", "web", "web_2"], id="active"),
        pytest.param({"status": "INACTIVE"}, ["webs"], id="inactive"),
        pytest.param({"familyPrefix": "web"}, ["web", "web_2", "webs"], id="prefix"),
        pytest.param({"familyPrefix": "web_"}, ["web_2"], id="prefix that is no pattern"),
    ],
)
def test_families_are_listed_by_prefix_and_status(
    request_change: dict[str, str], expected: list[str], ecs: Any
) -> None:
    register(ecs, "Web", "web", "web", "web_2", "webs", "zero")
    for name in ("web:1", "webs:1", "zero:1"):
        ecs.deregister_task_definition(taskDefinition=name)
    ecs.delete_task_definitions(taskDefinitions=["zero:1"])

    assert ecs.list_task_definition_families(**request_change)["families"] == expected


def test_families_are_listed_in_pages(ecs: Any) -> None:
    register(ecs, "a", "b", "c")

    pages = ecs.get_paginator("list_task_definition_families").paginate(
        PaginationConfig={"PageSize": 2}
    )

    assert [page["families"] for page in pages] == [["a", "b"], ["c"]]


@pytest.mark.one_store
def test_definition_that_only_other_capacity_can_run_is_registered(ecs: Any) -> None:
    log = {"logConfiguration": {"logDriver": "json-file"}}

    found = ecs.register_task_definition(
        family="web", containerDefinitions=[{**APP, **log, "memory": 64}]
    )["taskDefinition"]

    assert found["compatibilities"] == ["EC2", "MANAGED_INSTANCES"]


@pytest.mark.one_store
def test_log_driver_that_fargate_lacks_is_refused(ecs: Any) -> None:
    log = {"logConfiguration": {"logDriver": "json-file"}}

    found = refusal(
        ecs.register_task_definition, **{**FARGATE, "containerDefinitions": [{**APP, **log}]}
    )

    assert found == (
        "ClientException",
        "json-file is not a valid log driver. Must be one of [awslogs,splunk,awsfirelens]",
    )
