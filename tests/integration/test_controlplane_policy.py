"""What principals may do, told by the policies of their keys, as boto3 sees it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.controlplane import StartControlPlane, add_principal
from tests.fixtures.ecs import FARGATE, run

pytestmark = pytest.mark.one_store

ARN = "arn:aws:ecs:us-east-1:000000000000"
USER = "User: arn:aws:iam::000000000000:user/ci is not authorized to perform:"

Client = Any
Statement = dict[str, Any]
StartFor = Callable[[list[Statement]], tuple[Client, Client]]

RUNS_IN_A: list[Statement] = [
    {
        "Effect": "Allow",
        "Action": "ecs:RunTask",
        "Resource": f"{ARN}:task-definition/web:*",
        "Condition": {"ArnEquals": {"ecs:cluster": f"{ARN}:cluster/a"}},
    },
    {
        "Effect": "Allow",
        "Action": ["ecs:StopTask", "ecs:DescribeTasks"],
        "Resource": f"{ARN}:task/a/*",
    },
]
READS: list[Statement] = [
    {"Effect": "Allow", "Action": ["ecs:Describe*", "ecs:List*"], "Resource": "*"}
]
ALL_BUT_ONE_CLUSTER: list[Statement] = [
    {"Effect": "Allow", "Action": "*", "Resource": "*"},
    {
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": {"StringEquals": {"ecs:cluster": f"{ARN}:cluster/b"}},
    },
]


@pytest.fixture
def start_for(state_dir: Path, start_control_plane: StartControlPlane) -> StartFor:
    """Start a control plane with a policy for `ci`; gives the clients of ci and of an admin."""

    def start(statements: list[Statement]) -> tuple[Client, Client]:
        add_principal(state_dir, statements)
        plane = start_control_plane()
        admin = plane.client("admin")
        for cluster in ("a", "b"):
            admin.create_cluster(clusterName=cluster)
        admin.register_task_definition(**FARGATE)
        return plane.client("ci"), admin

    return start


def refusal(call: Callable[..., Any], **request: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**request)
    assert error.value.response["Error"]["Code"] == "AccessDeniedException"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(error.value.response["Error"]["Message"])


def test_key_runs_tasks_in_one_cluster_and_not_in_another(start_for: StartFor) -> None:
    ci, _ = start_for(RUNS_IN_A)

    allowed = run(ci, cluster="a")
    denied = refusal(lambda **request: run(ci, **request), cluster="b")

    assert len(allowed["failures"]) == 1  # there is no agent, so there is no room
    assert denied == (
        f"{USER} ecs:RunTask on resource: {ARN}:task-definition/web:* "
        "because no identity-based policy allows the ecs:RunTask action"
    )


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param("b", id="by name"),
        pytest.param(f"{ARN}:cluster/b", id="by ARN"),
        pytest.param("arn:aws:ecs:us-east-1:999999999999:cluster/a", id="of another account"),
        pytest.param("", id="the default one"),
        pytest.param("c", id="that isn't there"),
    ],
)
def test_cluster_that_is_not_allowed_is_refused_before_it_is_looked_up(
    reference: str, start_for: StartFor
) -> None:
    ci, _ = start_for(RUNS_IN_A)

    refusal(lambda **request: run(ci, **request), cluster=reference)


def test_key_stops_tasks_of_one_cluster_alone(start_for: StartFor) -> None:
    ci, _ = start_for(RUNS_IN_A)
    task = "0" * 32

    with pytest.raises(ClientError, match="The referenced task was not found"):
        ci.stop_task(cluster="a", task=task)
    assert f"on resource: {ARN}:task/b/{task}" in refusal(ci.stop_task, cluster="b", task=task)


def test_each_of_several_tasks_must_be_allowed(start_for: StartFor) -> None:
    own, other = "0" * 32, "1" * 32
    ci, _ = start_for(
        [{"Effect": "Allow", "Action": "ecs:DescribeTasks", "Resource": f"{ARN}:task/a/{own}"}]
    )

    assert ci.describe_tasks(cluster="a", tasks=[own])["failures"][0]["reason"] == "MISSING"
    assert f"task/a/{other}" in refusal(ci.describe_tasks, cluster="a", tasks=[own, other])


def test_read_only_key_reads(start_for: StartFor) -> None:
    ci, _ = start_for(READS)

    assert len(ci.list_clusters()["clusterArns"]) == 3
    assert ci.describe_clusters(clusters=["a"])["clusters"]
    assert ci.describe_task_definition(taskDefinition="web")["taskDefinition"]
    assert ci.list_tasks(cluster="a")["taskArns"] == []


@pytest.mark.parametrize(
    ("operation", "request_", "resource"),
    [
        pytest.param("create_cluster", {"clusterName": "c"}, "*", id="create a cluster"),
        pytest.param(
            "register_task_definition", FARGATE, f"{ARN}:task-definition/web:*", id="register"
        ),
        pytest.param(
            "run_task", {"taskDefinition": "web:1"}, f"{ARN}:task-definition/web:1", id="run"
        ),
        pytest.param(
            "stop_task", {"task": "0" * 32}, f"{ARN}:task/default/{'0' * 32}", id="stop a task"
        ),
    ],
)
def test_read_only_key_can_not(
    operation: str, request_: dict[str, Any], resource: str, start_for: StartFor
) -> None:
    ci, admin = start_for(READS)
    before = admin.list_clusters()["clusterArns"], admin.list_task_definitions(status="ACTIVE")

    message = refusal(getattr(ci, operation), **request_)

    assert f"on resource: {resource} because no identity-based policy allows" in message
    after = admin.list_clusters()["clusterArns"], admin.list_task_definitions(status="ACTIVE")
    assert after[0] == before[0]
    assert after[1]["taskDefinitionArns"] == before[1]["taskDefinitionArns"]


def test_explicit_deny_is_told_as_such(start_for: StartFor) -> None:
    ci, _ = start_for(ALL_BUT_ONE_CLUSTER)

    allowed = ci.list_tasks(cluster="a")
    message = refusal(ci.list_tasks, cluster="b")

    assert allowed["taskArns"] == []
    assert message == (
        f"{USER} ecs:ListTasks on resource: * with an explicit deny in an identity-based policy"
    )
