"""The frontend: shapes of requests and answers, clusters, task definitions."""

import contextlib
import logging
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from fargate_agent.controlplane import error_answers
from tests.fixtures.controlplane import DEADLINE_S, ControlPlane
from tests.fixtures.ecs import APP, FARGATE
from tests.fixtures.requests import Answer, post, signed


def send(plane: ControlPlane, operation: str, body: bytes) -> Answer:
    return post(plane, body, signed(plane, operation, body))


def connect(plane: ControlPlane) -> socket.socket:
    to = urlsplit(plane.url)
    return socket.create_connection((to.hostname, to.port), timeout=5)


def receive_all(connection: socket.socket) -> bytes:
    """Read until the other end closes, which it does when it is done with the request."""
    answer = b""
    while part := connection.recv(4096):
        answer += part
    return answer


def open_request(plane: ControlPlane, length: bytes) -> socket.socket:
    """Say how long a body will be, and begin with it."""
    connection = connect(plane)
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n{")
    return connection


@pytest.mark.one_store
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="half"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b'{"maxResults": NaN}', id="NaN"),
        pytest.param(b'{"maxResults": 99999999999}', id="too big for an integer"),
        pytest.param(b'{"maxResults": true}', id="boolean for integer"),
        pytest.param(b'{"maxResults": "7"}', id="string for integer"),
        pytest.param(b'{"nextToken": "\\ud800"}', id="half a character"),
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_malformed_body_is_a_serialization_error(body: bytes, control_plane: ControlPlane) -> None:
    status, answer = send(control_plane, "ListClusters", body)

    assert (status, answer["__type"]) == (400, "SerializationException")


@pytest.mark.one_store
@pytest.mark.parametrize(
    "time",
    [
        pytest.param("-1", id="before 1970"),
        pytest.param("253402300800", id="year 10000"),
        pytest.param("1e300", id="no year at all"),
        pytest.param("1e999", id="infinite"),
        pytest.param('"0001-01-01T00:00:00Z"', id="year 1"),
        pytest.param('"now"', id="no time"),
    ],
)
def test_time_that_no_calendar_has_is_a_serialization_error(
    time: str, control_plane: ControlPlane
) -> None:
    body = f'{{"executionStoppedAt": {time}}}'.encode()

    status, answer = send(control_plane, "SubmitTaskStateChange", body)

    assert (status, answer["__type"]) == (400, "SerializationException")


def test_last_second_of_the_calendar_is_a_time(control_plane: ControlPlane) -> None:
    _, answer = send(
        control_plane, "SubmitTaskStateChange", b'{"executionStoppedAt": 253402300799}'
    )

    assert answer["message"] == "taskId length should be one of [32,36]"


@pytest.mark.one_store
@pytest.mark.parametrize("amount", ["1e999", "-1e999", "9" * 400])
def test_number_that_is_too_big_for_a_double_is_a_serialization_error(
    amount: str, control_plane: ControlPlane
) -> None:
    body = f'{{"totalResources": [{{"doubleValue": {amount}}}]}}'.encode()

    status, answer = send(control_plane, "RegisterContainerInstance", body)

    assert (status, answer["__type"]) == (400, "SerializationException")


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(
            b'{"family":"a","containerDefinitions":[{"name":"a","imgae":"b"}]}',
            'Unknown parameter in containerDefinitions[0]: "imgae"',
            id="unknown member of a container",
        ),
        pytest.param(b'{"famly":"a"}', 'Unknown parameter in input: "famly"', id="unknown member"),
        pytest.param(
            b'{"family":"a"}',
            'Missing required parameter in input: "containerDefinitions"',
            id="missing member",
        ),
        pytest.param(
            b'{"family":"a","networkMode":"x","containerDefinitions":[]}',
            "networkMode must be one of: bridge, host, awsvpc, none",
            id="unknown value",
        ),
    ],
)
def test_wrong_member_is_named_with_its_path(
    body: bytes, text: str, control_plane: ControlPlane
) -> None:
    status, answer = send(control_plane, "RegisterTaskDefinition", body)

    assert (status, answer["__type"]) == (400, "InvalidParameterException")
    assert answer["message"].startswith(text)


def test_null_members_count_as_absent(control_plane: ControlPlane) -> None:
    status, _ = send(control_plane, "ListClusters", b'{"maxResults": null}')

    assert status == 200


def test_body_over_a_mebibyte_is_refused(control_plane: ControlPlane) -> None:
    status, answer = send(control_plane, "ListClusters", b" " * ((1 << 20) + 1))

    assert (status, answer["__type"]) == (413, "RequestEntityTooLargeException")


@pytest.mark.one_store
def test_definition_over_a_mebibyte_is_refused_in_the_words_of_aws(
    control_plane: ControlPlane,
) -> None:
    status, answer = send(control_plane, "RegisterTaskDefinition", b" " * ((1 << 20) + 1))

    text = "Actual length: '1048577'. Max allowed length is '65536' bytes."
    assert (status, answer) == (400, {"__type": "ClientException", "message": text})


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("request_text", "refusal"),
    [
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            b"SerializationException",
            id="not coded as it says",
        ),
        pytest.param(
            b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            b"UnknownOperationException",
            id="and to nowhere",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"Invalid character in chunk size",
            id="chunk of no size",
        ),
        pytest.param(b"nonsense\r\n\r\n", b"Invalid method", id="no HTTP"),
    ],
)
def test_request_that_makes_no_sense_is_refused_and_not_logged(
    request_text: bytes,
    refusal: bytes,
    control_plane: ControlPlane,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with contextlib.closing(connect(control_plane)) as connection:
        connection.sendall(request_text)
        answer = receive_all(connection)

    assert refusal in answer
    assert "ERROR" not in caplog.text


@pytest.mark.one_store
def test_body_that_says_it_will_be_too_long_is_refused_at_once(
    control_plane: ControlPlane,
) -> None:
    with contextlib.closing(open_request(control_plane, b"99999999999")) as connection:
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_client_that_hangs_up_within_a_body_is_no_fault_of_the_control_plane(
    control_plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG, error_answers.__name__),
        contextlib.closing(open_request(control_plane, b"1000")) as connection,
    ):
        connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + DEADLINE_S
        while not caplog.records:
            assert time.monotonic() < end

    assert [record.levelname for record in caplog.records] == ["DEBUG"]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        pytest.param("CreateTaskSet", "UnsupportedFeatureException", id="known to ECS"),
        pytest.param("Frobnicate", "UnknownOperationException", id="unknown to ECS"),
    ],
)
def test_operation_that_is_not_there_is_named(
    operation: str, kind: str, control_plane: ControlPlane
) -> None:
    status, answer = send(control_plane, operation, b"{}")

    assert (status, answer["__type"]) == (400, kind)
    assert operation in answer["message"]


def test_cluster_is_made_once_and_described_by_name_or_arn(ecs: Any) -> None:
    made = ecs.create_cluster(clusterName="blue", tags=[{"key": "team", "value": "a"}])["cluster"]
    again = ecs.create_cluster(clusterName="blue")["cluster"]

    answer = ecs.describe_clusters(clusters=["blue", made["clusterArn"], "red"], include=["TAGS"])

    assert again == made
    assert [cluster["clusterName"] for cluster in answer["clusters"]] == ["blue"]
    assert answer["clusters"][0]["tags"] == [{"key": "team", "value": "a"}]
    assert answer["failures"] == [
        {"arn": "arn:aws:ecs:us-east-1:000000000000:cluster/red", "reason": "MISSING"}
    ]


def test_bad_cluster_name_is_refused(ecs: Any) -> None:
    with pytest.raises(ClientError, match="ClusterName must match"):
        ecs.create_cluster(clusterName="no spaces")


def test_clusters_are_listed_in_pages(ecs: Any) -> None:
    for name in ("a", "b", "c"):
        ecs.create_cluster(clusterName=name)

    pages = list(ecs.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 3}))

    names = [[arn.rpartition("/")[2] for arn in page["clusterArns"]] for page in pages]
    assert names == [["a", "b", "c"], ["default"]]


def test_bad_page_token_is_refused(ecs: Any) -> None:
    with pytest.raises(ClientError, match="Invalid token"):
        ecs.list_clusters(nextToken="?")


def test_definition_is_registered_with_its_defaults(ecs: Any) -> None:
    request = {**FARGATE, "cpu": ".25 vCPU", "memory": "0.5 GB"}
    request["containerDefinitions"] = [{**APP, "portMappings": [{"containerPort": 80}]}]

    found = ecs.register_task_definition(**request)["taskDefinition"]

    container = found["containerDefinitions"][0]
    assert (found["cpu"], found["memory"], found["revision"]) == ("256", "512", 1)
    assert (found["status"], "FARGATE" in found["compatibilities"]) == ("ACTIVE", True)
    assert container["portMappings"] == [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}]
    assert (container["cpu"], container["essential"], container["environment"]) == (0, True, [])


def test_revisions_count_up_and_the_newest_is_meant(ecs: Any) -> None:
    arns = [
        ecs.register_task_definition(**FARGATE)["taskDefinition"]["taskDefinitionArn"]
        for _ in range(2)
    ]

    described = [
        ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["taskDefinitionArn"]
        for name in ("web", "web:1", arns[0])
    ]

    assert described == [arns[1], arns[0], arns[0]]
    assert ecs.list_task_definitions(sort="DESC")["taskDefinitionArns"] == arns[::-1]
    assert ecs.list_task_definitions(familyPrefix="other")["taskDefinitionArns"] == []


def test_unknown_definition_can_not_be_described(ecs: Any) -> None:
    with pytest.raises(ClientError, match="Unable to describe task definition."):
        ecs.describe_task_definition(taskDefinition="nope:7")


NO_MEMORY = (
    "Invalid setting for container 'app'. At least one of 'memory' or 'memoryReservation' must be "
    "specified."
)
NO_PAIR = (
    "No Fargate configuration exists for given values: 256 CPU, 3072 memory. See the Amazon ECS "
    "documentation for the valid values."
)
CPU_SUM = (
    "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'."
)
NO_TASK_MEMORY = "Fargate requires that 'memory' be defined at the task level."
BIG_CONTAINER = "The 'memory' setting for container 'app' is greater than for the task."
NO_DEPENDENCY = "Cannot depend on container + 'nope' because it does not exist"


def app(**members: Any) -> dict[str, Any]:
    return {"containerDefinitions": [{**APP, **members}]}


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param(
            {"family": "a b"}, "Family contains invalid characters.", id="characters of the family"
        ),
        pytest.param(
            {"containerDefinitions": []}, "Container list cannot be empty.", id="no containers"
        ),
        pytest.param(
            {"containerDefinitions": [{"image": "x"}]},
            "Container.name should not be null or empty.",
            id="no name",
        ),
        pytest.param(
            {"containerDefinitions": [APP, APP]},
            "Container names must be unique within a task definition",
            id="same name twice",
        ),
        pytest.param(
            {"containerDefinitions": [{"name": "app"}]},
            "Container.image should not be null or empty.",
            id="no image",
        ),
        pytest.param(
            app(essential=False),
            "Task definition doesn't have any essential container.",
            id="none essential",
        ),
        pytest.param(
            {"networkMode": "bridge"},
            "Fargate only supports network mode ‘awsvpc’.",
            id="network mode",
        ),
        pytest.param(
            {"cpu": None}, "Fargate requires that 'cpu' be defined at the task level.", id="no cpu"
        ),
        pytest.param({"memory": None}, NO_MEMORY, id="no memory anywhere"),
        pytest.param({"memory": None, **app(memory=64)}, NO_TASK_MEMORY, id="no task memory"),
        pytest.param({"memory": "3072"}, NO_PAIR, id="no such pair"),
        pytest.param(app(memory=1024), BIG_CONTAINER, id="container larger than task"),
        pytest.param(app(cpu=512), CPU_SUM, id="containers want more cpu than the task has"),
        pytest.param(
            {"volumes": [{"name": "v"}]},
            "Volumes [v] are not referenced by any of the containers",
            id="unused volume",
        ),
        pytest.param(
            app(mountPoints=[{"sourceVolume": "v"}]), "Unknown volume 'v'.", id="unknown volume"
        ),
        pytest.param(
            app(dependsOn=[{"containerName": "nope", "condition": "START"}]),
            NO_DEPENDENCY,
            id="unknown dependency",
        ),
    ],
)
def test_definition_is_refused_in_the_words_of_aws(
    change: dict[str, Any], text: str, ecs: Any
) -> None:
    request = {k: v for k, v in {**FARGATE, **change}.items() if v is not None}

    with pytest.raises(ClientError) as error:
        ecs.register_task_definition(**request)

    assert error.value.response["Error"] == {"Code": "ClientException", "Message": text}


@pytest.mark.one_store
def test_definition_that_no_agent_could_be_told_is_refused_at_once(ecs: Any) -> None:
    container = {**APP, "portMappings": [{"containerPort": 80, "protocol": "tcp"}]}
    container["mountPoints"] = [{"sourceVolume": "v"}]

    with pytest.raises(ClientError, match="containerPath"):
        ecs.register_task_definition(
            **{**FARGATE, "containerDefinitions": [container], "volumes": [{"name": "v"}]}
        )
