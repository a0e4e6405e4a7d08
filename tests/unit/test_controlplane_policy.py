import json
from typing import Any

import pytest

from fargate_agent.controlplane.access.keys import BUILT_IN_POLICIES
from fargate_agent.controlplane.access.permissions import TARGETS, Asked, Target, find_targets
from fargate_agent.controlplane.access.policy import Decision, Policy, parse_policy
from fargate_agent.controlplane.api import OPERATIONS
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.validate import Json

ARN = "arn:aws:ecs:us-east-1:000000000000"
CLUSTER_A = {"ecs:cluster": f"{ARN}:cluster/a"}
ALLOWED, NOT_ALLOWED, DENIED = Decision.ALLOWED, Decision.NOT_ALLOWED, Decision.DENIED


def policy(*statements: dict[str, Any]) -> Policy:
    return parse_policy(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}))


def allow(action: Any = "ecs:*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "ecs:*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


@pytest.mark.parametrize(
    ("statements", "decision"),
    [
        pytest.param([], NOT_ALLOWED, id="nothing said"),
        pytest.param([allow()], ALLOWED, id="allowed"),
        pytest.param([allow(), deny("ecs:StopTask")], DENIED, id="deny after allow"),
        pytest.param([deny("ecs:StopTask"), allow()], DENIED, id="deny before allow"),
        pytest.param([allow(), deny("ecs:RunTask")], ALLOWED, id="deny of something else"),
    ],
)
def test_policy_denies_unless_allowed_and_a_deny_wins(
    statements: list[dict[str, Any]], decision: Decision
) -> None:
    assert policy(*statements).decide("ecs:StopTask", f"{ARN}:task/a/1", {}) is decision


@pytest.mark.parametrize(
    ("action", "decision"),
    [
        pytest.param("*", ALLOWED, id="everything"),
        pytest.param("ecs:StopTask", ALLOWED, id="same"),
        pytest.param("ECS:stoptask", ALLOWED, id="other case"),
        pytest.param("ecs:Stop*", ALLOWED, id="star"),
        pytest.param("ecs:St?pTask", ALLOWED, id="question mark"),
        pytest.param(["ecs:RunTask", "ecs:StopTask"], ALLOWED, id="one of a list"),
        pytest.param("ecs:Stop", NOT_ALLOWED, id="only the beginning"),
        pytest.param("ec2:*", NOT_ALLOWED, id="other service"),
    ],
)
def test_action_is_matched_with_wildcards(action: Any, decision: Decision) -> None:
    assert policy(allow(action)).decide("ecs:StopTask", "*", {}) is decision


def test_not_action_means_every_other_one() -> None:
    found = policy({"Effect": "Allow", "NotAction": "ecs:Delete*", "Resource": "*"})

    assert found.decide("ecs:DeleteCluster", "*", {}) is NOT_ALLOWED
    assert found.decide("ecs:ListClusters", "*", {}) is ALLOWED


@pytest.mark.parametrize(
    ("resource", "decision"),
    [
        pytest.param(f"{ARN}:task/a/1", ALLOWED, id="same"),
        pytest.param(f"{ARN}:task/a/*", ALLOWED, id="star"),
        pytest.param("arn:aws:ecs:*:*:task/?/1", ALLOWED, id="star in other parts"),
        pytest.param([f"{ARN}:task/b/*", f"{ARN}:task/a/*"], ALLOWED, id="one of a list"),
        pytest.param(f"{ARN}:task/b/*", NOT_ALLOWED, id="other cluster"),
        pytest.param(f"{ARN}:TASK/a/*", NOT_ALLOWED, id="other case"),
        pytest.param("arn:aws:ecs:*:x:task/a/1", NOT_ALLOWED, id="star stays in its part"),
    ],
)
def test_resource_is_matched_part_by_part(resource: Any, decision: Decision) -> None:
    found = policy(allow(resource=resource))

    assert found.decide("ecs:StopTask", f"{ARN}:task/a/1", {}) is decision


def test_action_on_nothing_in_particular_needs_every_resource() -> None:
    found = policy(allow(resource=f"{ARN}:cluster/*"))

    assert found.decide("ecs:ListClusters", "*", {}) is NOT_ALLOWED


def test_not_resource_means_every_other_one() -> None:
    found = policy({"Effect": "Allow", "Action": "*", "NotResource": f"{ARN}:cluster/a"})

    assert found.decide("ecs:DeleteCluster", f"{ARN}:cluster/a", {}) is NOT_ALLOWED
    assert found.decide("ecs:DeleteCluster", f"{ARN}:cluster/b", {}) is ALLOWED


@pytest.mark.parametrize(
    ("statement", "decision"),
    [
        pytest.param(allow(resource=f"{ARN}:task-definition/web:*"), ALLOWED, id="allow any"),
        pytest.param(allow(resource=f"{ARN}:task-definition/web:3"), NOT_ALLOWED, id="allow one"),
        pytest.param(allow(resource=f"{ARN}:task-definition/web:?"), NOT_ALLOWED, id="allow some"),
        pytest.param(deny(resource=f"{ARN}:task-definition/web:3"), DENIED, id="deny one"),
        pytest.param(deny(resource=f"{ARN}:task-definition/web*3"), DENIED, id="deny some"),
        pytest.param(deny(resource=f"{ARN}:task-definition/w:3"), NOT_ALLOWED, id="deny another"),
    ],
)
def test_open_revision_is_judged_as_the_worst_it_may_become(
    statement: dict[str, Any], decision: Decision
) -> None:
    definition = f"{ARN}:task-definition/web:*"

    assert policy(statement).decide("ecs:RunTask", definition, {}) is decision


@pytest.mark.parametrize(
    ("condition", "decision"),
    [
        pytest.param({"StringEquals": {"ecs:cluster": f"{ARN}:cluster/a"}}, ALLOWED, id="equal"),
        pytest.param({"StringEquals": {"ECS:Cluster": f"{ARN}:cluster/a"}}, ALLOWED, id="case"),
        pytest.param({"StringEquals": {"ecs:cluster": f"{ARN}:cluster/*"}}, NOT_ALLOWED, id="*"),
        pytest.param(
            {"StringEquals": {"ecs:cluster": [f"{ARN}:cluster/b", f"{ARN}:cluster/a"]}},
            ALLOWED,
            id="one of several values",
        ),
        pytest.param({"StringLike": {"ecs:cluster": "*/a"}}, ALLOWED, id="like"),
        pytest.param({"StringNotEquals": {"ecs:cluster": "x"}}, ALLOWED, id="not equal"),
        pytest.param({"StringNotLike": {"ecs:cluster": ["x", "*/a"]}}, NOT_ALLOWED, id="not like"),
        pytest.param({"ArnEquals": {"ecs:cluster": f"{ARN}:cluster/?"}}, ALLOWED, id="ARN equal"),
        pytest.param({"ArnLike": {"ecs:cluster": "arn:aws:ecs:*:*:*/a"}}, ALLOWED, id="ARN like"),
        pytest.param({"ArnLike": {"ecs:cluster": "arn:*:*:*:*:x"}}, NOT_ALLOWED, id="ARN unlike"),
        pytest.param({"ArnNotEquals": {"ecs:cluster": f"{ARN}:cluster/b"}}, ALLOWED, id="ARN not"),
        pytest.param({"ArnNotLike": {"ecs:cluster": f"{ARN}:*"}}, NOT_ALLOWED, id="ARN not like"),
        pytest.param({"Null": {"ecs:cluster": "false"}}, ALLOWED, id="there"),
        pytest.param({"Null": {"ecs:cluster": True}}, NOT_ALLOWED, id="not there"),
        pytest.param(
            {"StringLike": {"ecs:cluster": "*/a", "aws:username": "x"}},
            NOT_ALLOWED,
            id="one of two keys fails",
        ),
        pytest.param(
            {"StringLike": {"ecs:cluster": "*/a"}, "Null": {"ecs:service": "false"}},
            NOT_ALLOWED,
            id="one of two operators fails",
        ),
    ],
)
def test_condition_is_compared_with_its_key(condition: dict[str, Any], decision: Decision) -> None:
    found = policy(allow(Condition=condition))

    assert found.decide("ecs:RunTask", "*", CLUSTER_A) is decision


@pytest.mark.parametrize(
    ("operator", "decision"),
    [
        pytest.param("StringEquals", NOT_ALLOWED, id="positive"),
        pytest.param("StringNotEquals", ALLOWED, id="negative"),
        pytest.param("ArnLike", NOT_ALLOWED, id="ARN"),
        pytest.param("ArnLikeIfExists", ALLOWED, id="ARN if it exists"),
        pytest.param("StringLikeIfExists", ALLOWED, id="if it exists"),
    ],
)
def test_key_without_value_satisfies_what_is_negative_or_optional(
    operator: str, decision: Decision
) -> None:
    found = policy(allow(Condition={operator: {"ecs:cluster": f"{ARN}:cluster/a"}}))

    assert found.decide("ecs:ListClusters", "*", {}) is decision


def test_optional_condition_counts_when_its_key_has_a_value() -> None:
    found = policy(allow(Condition={"StringEqualsIfExists": {"ecs:cluster": "b"}}))

    assert found.decide("ecs:RunTask", "*", CLUSTER_A) is NOT_ALLOWED


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("{", "not JSON", id="not JSON"),
        pytest.param("[]", "must be a JSON object", id="no object"),
        pytest.param('{"Version": "2012-10-18", "Statement": []}', "Version", id="version"),
        pytest.param('{"Statements": []}', "unknown element 'Statements'", id="misspelt"),
        pytest.param('{"Statement": "x"}', r"Statement\[0\] must be an object", id="string"),
        pytest.param('{"Statement": [], "Statement": []}', "there twice", id="twice"),
    ],
)
def test_text_that_is_no_policy_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_policy(text)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param({"Effect": "allow"}, "Effect must be Allow or Deny", id="effect"),
        pytest.param({"Principal": "*"}, "unknown element 'Principal'", id="principal"),
        pytest.param({"Action": "RunTask"}, "'RunTask' is no action", id="action"),
        pytest.param({"Action": []}, "Action must be a string", id="no action"),
        pytest.param({"NotAction": "*"}, "needs Action or NotAction", id="both actions"),
        pytest.param({"Resource": "cluster/a"}, "'cluster/a' is no ARN", id="resource"),
        pytest.param({"Resource": f"{ARN}:task/${{aws:username}}/*"}, "variables", id="variable"),
        pytest.param({"Condition": {"IpAddress": {}}}, "operator 'IpAddress'", id="operator"),
        pytest.param({"Condition": {"NullIfExists": {}}}, "'NullIfExists'", id="null"),
        pytest.param(
            {"Condition": {"StringEquals": {"aws:SourceIp": "x"}}}, "key 'aws:SourceIp'", id="key"
        ),
        pytest.param(
            {"Condition": {"Null": {"ecs:cluster": "no"}}}, "must be true or false", id="no boolean"
        ),
        pytest.param(
            {"Condition": {"ArnEquals": {"ecs:cluster": "a"}}}, "'a' is no ARN", id="no ARN"
        ),
    ],
)
def test_statement_that_can_not_be_evaluated_is_refused_by_its_name(
    change: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault) as error:
        policy(allow(), {**allow(), "Sid": "Mine", **change})

    assert "Statement[1] (Mine)" in str(error.value)


@pytest.mark.parametrize("name", BUILT_IN_POLICIES)
def test_built_in_policy_is_a_policy(name: str) -> None:
    assert parse_policy(BUILT_IN_POLICIES[name]).statements


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_operation_has_its_row_of_targets(operation: str) -> None:
    assert operation in TARGETS


@pytest.mark.parametrize(
    ("operation", "allowed"),
    [
        pytest.param("DiscoverPollEndpoint", True, id="find the websocket"),
        pytest.param("Poll", True, id="open it"),
        pytest.param("RegisterContainerInstance", True, id="register"),
        pytest.param("SubmitTaskStateChange", True, id="report"),
        pytest.param("DescribeTasks", False, id="read tasks"),
        pytest.param("StopTask", False, id="stop tasks"),
        pytest.param("UpdateContainerInstancesState", False, id="drain"),
    ],
)
def test_agent_may_call_what_agents_call(operation: str, allowed: bool) -> None:
    decision = parse_policy(BUILT_IN_POLICIES["agent"]).decide(f"ecs:{operation}", "*", {})

    assert (decision is ALLOWED) is allowed


def find(operation: str, request: Json) -> list[Target]:
    return find_targets(operation, Asked(request, Arns("us-east-1", "000000000000"), "default"))


TASK_ID = "0" * 32


@pytest.mark.parametrize(
    ("operation", "request_", "resources"),
    [
        pytest.param("ListClusters", {}, ["*"], id="list"),
        pytest.param("DescribeClusters", {}, [f"{ARN}:cluster/default"], id="default cluster"),
        pytest.param(
            "DescribeClusters",
            {"clusters": ["a", f"{ARN}:cluster/b"]},
            [f"{ARN}:cluster/a", f"{ARN}:cluster/b"],
            id="each cluster",
        ),
        pytest.param(
            "DeleteCluster",
            {"cluster": "arn:aws:ecs:x:1:cluster/a"},
            ["arn:aws:ecs:x:1:cluster/a"],
            id="cluster of somebody else",
        ),
        pytest.param(
            "RegisterTaskDefinition",
            {"family": "web"},
            [f"{ARN}:task-definition/web:*"],
            id="definition to be",
        ),
        pytest.param(
            "DeleteTaskDefinitions",
            {"taskDefinitions": ["web:03", f"{ARN}:task-definition/log:1"]},
            [f"{ARN}:task-definition/web:3", f"{ARN}:task-definition/log:1"],
            id="each definition",
        ),
        pytest.param("DescribeTaskDefinition", {"taskDefinition": "web"}, ["*"], id="definition"),
        pytest.param(
            "DescribeServices",
            {"cluster": "a", "services": ["web", f"{ARN}:service/log", f"{ARN}:service/a/db"]},
            [f"{ARN}:service/a/web", f"{ARN}:service/a/log", f"{ARN}:service/a/db"],
            id="each service, named in three ways",
        ),
        pytest.param("TagResource", {"resourceArn": f"{ARN}:x"}, [f"{ARN}:x"], id="tags"),
        pytest.param(
            "DescribeCapacityProviders",
            {"capacityProviders": ["FARGATE"]},
            [f"{ARN}:capacity-provider/FARGATE"],
            id="capacity provider",
        ),
    ],
)
def test_operation_acts_on_what_the_request_names(
    operation: str, request_: Json, resources: list[str]
) -> None:
    assert [target.resource for target in find(operation, request_)] == resources


@pytest.mark.parametrize(
    ("operation", "request_", "target"),
    [
        pytest.param(
            "RunTask",
            {"cluster": "a", "taskDefinition": "web:3"},
            Target(f"{ARN}:task-definition/web:3", CLUSTER_A),
            id="run",
        ),
        pytest.param(
            "StopTask",
            {"cluster": f"{ARN}:cluster/a", "task": TASK_ID},
            Target(f"{ARN}:task/a/{TASK_ID}", CLUSTER_A),
            id="stop",
        ),
        pytest.param("ListTasks", {"cluster": "a"}, Target("*", CLUSTER_A), id="list"),
        pytest.param(
            "StartTask",
            {"cluster": "a", "taskDefinition": "web:3", "containerInstances": ["i"]},
            Target(
                f"{ARN}:task-definition/web:3",
                {**CLUSTER_A, "ecs:container-instances": f"{ARN}:container-instance/a/i"},
            ),
            id="start",
        ),
        pytest.param(
            "StopServiceDeployment",
            {"serviceDeploymentArn": f"{ARN}:service-deployment/a/web/1"},
            Target(
                f"{ARN}:service-deployment/a/web/1",
                {**CLUSTER_A, "ecs:service": f"{ARN}:service/a/web"},
            ),
            id="deployment",
        ),
    ],
)
def test_operation_in_a_cluster_gives_the_values_of_conditions(
    operation: str, request_: Json, target: Target
) -> None:
    assert find(operation, request_) == [target]


def test_reference_into_another_cluster_is_refused() -> None:
    with pytest.raises(ApiError, match="Identifier is for cluster b. Your cluster is a"):
        find("StopTask", {"cluster": "a", "task": f"{ARN}:task/b/{TASK_ID}"})


def test_tags_of_an_old_arn_are_refused() -> None:
    with pytest.raises(ApiError, match="Long arn format must be used"):
        find("TagResource", {"resourceArn": f"{ARN}:task/{TASK_ID}"})


@pytest.mark.parametrize(
    ("allowed", "denied", "decision"),
    [
        pytest.param("*", None, ALLOWED, id="anything"),
        pytest.param(f"{ARN}:cluster/*", None, ALLOWED, id="every cluster"),
        pytest.param(f"{ARN}:cluster/prod", None, NOT_ALLOWED, id="one"),
        pytest.param(f"{ARN}:cluster/p*", None, NOT_ALLOWED, id="some"),
        pytest.param(f"{ARN}:cluster/?", None, NOT_ALLOWED, id="of one character"),
        pytest.param("*", f"{ARN}:cluster/prod", DENIED, id="all but one"),
        pytest.param("*", "arn:aws:ecs:*:*:cluster/prod", DENIED, id="in any region"),
        pytest.param("*", f"{ARN}:*prod", DENIED, id="by its end"),
        pytest.param("*", f"{ARN}:cl*", DENIED, id="by its beginning"),
        pytest.param("*", f"{ARN}:task/prod/*", ALLOWED, id="no cluster"),
        pytest.param("*", "arn:aws:ecs:eu-west-1:*:cluster/prod", ALLOWED, id="in another region"),
    ],
)
def test_every_cluster_is_allowed_only_if_none_is_left_out(
    allowed: str, denied: str | None, decision: Decision
) -> None:
    statements = [allow("*", allowed), *([] if denied is None else [deny("*", denied)])]
    found = policy(*statements).decide("ecs:RegisterContainerInstance", f"{ARN}:cluster/*", {})

    assert found is decision
