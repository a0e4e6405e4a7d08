"""TagResource, UntagResource and ListTagsForResource, on whatever can have tags."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.ecs import FARGATE, create_service, kind_of, run

PREFIX = "arn:aws:ecs:us-east-1:000000000000:"
CLUSTER = f"{PREFIX}cluster/default"


def tag(key: str, value: str = "") -> dict[str, str]:
    return {"key": key, "value": value}


def tags_of(ecs: Any, arn: str) -> Any:
    return ecs.list_tags_for_resource(resourceArn=arn)["tags"]


def test_tags_are_added_replaced_and_taken_away(ecs: Any) -> None:
    ecs.tag_resource(resourceArn=CLUSTER, tags=[tag("a", "1"), tag("b", "2")])
    ecs.tag_resource(resourceArn=CLUSTER, tags=[tag("a", "3"), tag("c", "4")])
    ecs.untag_resource(resourceArn=CLUSTER, tagKeys=["b", "never there"])

    assert tags_of(ecs, CLUSTER) == [tag("a", "3"), tag("c", "4")]


async def test_everything_that_fargate_has_can_be_tagged(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    await asyncio.to_thread(create_service, ecs, desiredCount=0)
    task = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]
    arns = [
        CLUSTER,
        task,
        simulated_agent.instance_arn,
        f"{PREFIX}task-definition/web:1",
        f"{PREFIX}service/default/web",
    ]

    found = []
    for arn in arns:
        await asyncio.to_thread(ecs.tag_resource, resourceArn=arn, tags=[tag("team", "a")])
        found.append(await asyncio.to_thread(tags_of, ecs, arn))

    assert found == [[tag("team", "a")]] * len(arns)
    shown = await asyncio.to_thread(ecs.describe_tasks, tasks=[task], include=["TAGS"])
    assert shown["tasks"][0]["tags"] == [tag("team", "a")]


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("arn", "kind"),
    [
        pytest.param("default", "InvalidParameterException", id="no ARN"),
        pytest.param("arn:aws:s3:::bucket", "InvalidParameterException", id="other service"),
        pytest.param(
            "arn:aws:ecs:us-east-1:999999999999:cluster/default",
            "InvalidParameterException",
            id="other account",
        ),
        pytest.param(f"{PREFIX}cluster/", "InvalidParameterException", id="no name"),
        pytest.param(f"{PREFIX}cluster/red", "InvalidParameterException", id="no such cluster"),
        pytest.param(f"{PREFIX}task/{'0' * 32}", "InvalidParameterException", id="old ARN"),
        pytest.param(
            f"{PREFIX}task/default/{'0' * 32}", "InvalidParameterException", id="no such task"
        ),
        pytest.param(
            f"{PREFIX}service/default/web", "InvalidParameterException", id="no such service"
        ),
        pytest.param(
            f"{PREFIX}container-instance/default/{'0' * 32}",
            "InvalidParameterException",
            id="no such instance",
        ),
        pytest.param(f"{PREFIX}task-definition/web", "ClientException", id="no revision"),
        pytest.param(f"{PREFIX}task-definition/web:01", "ClientException", id="odd revision"),
        pytest.param(
            f"{PREFIX}capacity-provider/FARGATE", "UnsupportedFeatureException", id="provider"
        ),
    ],
)
def test_what_can_not_be_tagged_is_refused(arn: str, kind: str, ecs: Any) -> None:
    ecs.register_task_definition(**FARGATE)

    for call, more in (
        (ecs.tag_resource, {"tags": [tag("a")]}),
        (ecs.untag_resource, {"tagKeys": ["a"]}),
        (ecs.list_tags_for_resource, {}),
    ):
        with pytest.raises(ClientError) as refusal:
            call(resourceArn=arn, **more)
        assert kind_of(refusal) == kind


@pytest.mark.one_store
@pytest.mark.parametrize(
    "tags",
    [
        pytest.param([tag("aws:a")], id="reserved"),
        pytest.param([tag("AWS:a")], id="reserved in capitals"),
        pytest.param([tag("a"), tag("a")], id="twice"),
        pytest.param([{"value": "a"}], id="no key"),
        pytest.param([tag("a*")], id="sign"),
        pytest.param([tag("a", "b\n")], id="line end"),
        pytest.param([tag("a" * 129)], id="long key"),
        pytest.param([tag("a", "b" * 257)], id="long value"),
        pytest.param([tag(str(number)) for number in range(51)], id="51"),
    ],
)
def test_wrong_tags_are_refused(tags: list[dict[str, str]], ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.tag_resource(resourceArn=CLUSTER, tags=tags)

    assert tags_of(ecs, CLUSTER) == []


def test_tags_of_every_script_are_taken(ecs: Any) -> None:
    tags = [tag("équipe 一", "Größe_.:/=+-@")]

    ecs.tag_resource(resourceArn=CLUSTER, tags=tags)

    assert tags_of(ecs, CLUSTER) == tags


def test_resource_has_50_tags_at_most(ecs: Any) -> None:
    full = [tag(f"{number:02}") for number in range(50)]
    ecs.tag_resource(resourceArn=CLUSTER, tags=full)

    with pytest.raises(ecs.exceptions.LimitExceededException):
        ecs.tag_resource(resourceArn=CLUSTER, tags=[tag("one more")])

    ecs.tag_resource(resourceArn=CLUSTER, tags=[tag("07", "changed")])
    assert len(tags_of(ecs, CLUSTER)) == 50


def test_deleted_cluster_has_no_tags(ecs: Any) -> None:
    ecs.create_cluster(clusterName="blue")
    ecs.delete_cluster(cluster="blue")

    with pytest.raises(ClientError, match=r"The specified cluster is inactive\. Specify an"):
        tags_of(ecs, f"{PREFIX}cluster/blue")


async def test_stopped_task_can_not_be_tagged(ecs: Any, simulated_agent: SimulatedAgent) -> None:
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    task = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]
    await simulated_agent.take()
    await simulated_agent.submit(task, "STOPPED")

    with pytest.raises(ClientError, match=r"The specified task is stopped\."):
        await asyncio.to_thread(ecs.tag_resource, resourceArn=task, tags=[tag("a")])
