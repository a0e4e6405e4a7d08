"""Each member of the large requests has a verdict in docs/members.md, and the verdicts are true."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.tasks.launch import plan_launch
from fargate_agent.errors import TaskError
from fargate_agent.plan import plan_task
from fargate_agent.wire.messages import TaskMessage
from tests.fixtures.ecs import APP, FARGATE, NETWORK
from tests.launches import RELAXED, launch_service, make_plane, make_vpc, register, tell
from tests.members import OPERATIONS, Row, find_shape, leaves, put, read_rows, sample
from tests.messages import site

TESTS = Path(__file__).parents[1]
INHERITED = ("refused", "no effect")
ROWS = read_rows()
ROLE = "arn:aws:iam::000000000000:role/r"
DEFINITION: dict[str, Any] = {
    **FARGATE,
    "executionRoleArn": ROLE,
    "taskRoleArn": ROLE,
    "containerDefinitions": [
        {**APP, "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]},
    ],
    "volumes": [{"name": "v"}],
}
AT_LAUNCH = put(DEFINITION, "volumes[].configuredAtLaunch", value=True)
RUN_TASK: dict[str, Any] = {
    "taskDefinition": "web",
    "networkConfiguration": NETWORK,
    "overrides": {"containerOverrides": [{"name": "app"}]},
}
SERVICE: dict[str, Any] = {
    "serviceName": "web",
    "taskDefinition": "web",
    "desiredCount": 1,
    "networkConfiguration": NETWORK,
}
CONFIGURED = {
    "name": "v",
    "managedEBSVolume": {
        "roleArn": ROLE,
        "sizeInGiB": 1,
        "snapshotId": "snap-0123456789abcdef0",
    },
}
BASES = {"RegisterTaskDefinition": DEFINITION, "RunTask": RUN_TASK, "CreateService": SERVICE}


def rows(verdict: str) -> list[Any]:
    return [pytest.param(row, id=str(row)) for row in ROWS if row.verdict == verdict]


def follow(operation: str, request: dict[str, Any], cluster: str = "default") -> TaskMessage:
    """Go from a request to what the agent is told, and let the agent plan the task."""
    plane, definition = make_plane(), DEFINITION
    if operation == "RegisterTaskDefinition":
        definition, request = request, RUN_TASK
    elif "volumeConfigurations" in request:
        definition = AT_LAUNCH
    if operation == "CreateService":
        launch = launch_service(plane, register(definition), request, cluster)
    else:
        launch = plan_launch(plane, make_vpc(plane), cluster, register(definition), request)
    message = tell(launch)
    plan_task(message, site(Path("/nowhere")))
    return message


def refusal(operation: str, request: dict[str, Any], cluster: str = "default") -> str:
    with pytest.raises((ApiError, TaskError)) as error:
        follow(operation, request, cluster)
    refused = error.value
    return refused.reason if isinstance(refused, TaskError) else str(refused)


def asking(row: Row, base: dict[str, Any]) -> dict[str, Any]:
    return put(base, row.path, sample(row.operation, row.path))


def without_ids(message: TaskMessage) -> TaskMessage:
    """Leave out what is drawn by lot."""
    volumes = tuple(
        volume.model_copy(
            update={"ebs": volume.ebs and volume.ebs.model_copy(update={"volume_id": ""})}
        )
        for volume in message.volumes
    )
    roles = {"role_credentials": None, "execution_role_credentials": None}
    return message.model_copy(update={**roles, "volumes": volumes})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_member_of_botocore_s_model_has_one_verdict(operation: str) -> None:
    verdicts = {row.path: row.verdict for row in ROWS if row.operation == operation}

    def judged(path: str) -> int:
        above = [path[:end] for end, char in enumerate(path) if char in ".["]
        inherited = sum(verdicts.get(one) in INHERITED for one in above)
        return inherited + (path in verdicts)

    assert {path: judged(path) for path in leaves(operation) if judged(path) != 1} == {}


def test_page_names_only_members_that_there_are_and_each_once() -> None:
    for row in ROWS:
        find_shape(row.operation, row.path)

    assert len({str(row) for row in ROWS}) == len(ROWS)
    assert {row.verdict for row in ROWS} == {"done", "relaxed", *INHERITED}


@cache
def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize("row", [*rows("done"), *rows("relaxed")])
def test_member_that_is_done_names_a_test_that_exists(row: Row) -> None:
    file, _, name = row.how.rpartition("`")[2].partition("::")

    assert name.startswith("test_")
    assert name in functions(TESTS / file)


@pytest.mark.parametrize("row", rows("refused"))
def test_member_that_is_refused_is_refused_in_these_words(row: Row) -> None:
    assert row.how in refusal(row.operation, asking(row, BASES[row.operation]))


@pytest.mark.parametrize("row", rows("relaxed"))
def test_member_that_only_relaxed_clusters_have_is_refused_elsewhere(row: Row) -> None:
    refused, _, _ = row.how.partition("`")

    assert refused in refusal(row.operation, asking(row, BASES[row.operation]))


@pytest.mark.parametrize(
    "row", [param for param in rows("refused") if "TaskDefinition." in str(param.id)]
)
def test_member_that_is_refused_is_named_in_a_relaxed_cluster_too(row: Row) -> None:
    relaxed = {**DEFINITION, "networkMode": "bridge", "requiresCompatibilities": ["EC2"]}

    text = refusal(row.operation, asking(row, relaxed), RELAXED)

    name = row.path.rpartition(".")[2]
    assert name.lower() in text.replace(" ", "").lower()


@pytest.mark.parametrize("row", rows("no effect"))
def test_member_without_effect_is_taken_and_changes_nothing(row: Row) -> None:
    base = BASES[row.operation]
    if "portMappings" in row.path and "Range" not in row.path:
        base = put(base, "containerDefinitions[].portMappings[].containerPort", 80)
    if "volumeConfigurations" in row.path:
        base = {**base, "volumeConfigurations": [CONFIGURED]}

    changed, unchanged = follow(row.operation, asking(row, base)), follow(row.operation, base)

    (told,), (plain,) = changed.containers, unchanged.containers
    ports = {"port_mappings": ()}
    assert told.model_copy(update=ports) == plain.model_copy(update=ports)
    containers = {"containers": ()}
    assert without_ids(changed).model_copy(update=containers) == without_ids(unchanged).model_copy(
        update=containers
    )
