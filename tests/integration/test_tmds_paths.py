"""An answer for each path of the metadata endpoint, over real sockets."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.tmds.control_plane import RefusedError
from fargate_agent.tmds.routes import ROUTES
from tests.fixtures.aws import role_json
from tests.fixtures.tmds import Answer, Endpoint, connect, fetch, receive

pytestmark = pytest.mark.root

NETWORK = {"NetworkMode": "awsvpc", "IPv4Addresses": ["10.213.0.5"]}
TAGS = {"ListTagsForResource": {"tags": [{"key": "team", "value": "blue"}]}}


def container_v2(task: TaskPlan, container: ContainerPlan) -> dict[str, Any]:
    return {
        "DockerId": container.id,
        "Name": container.name,
        "DockerName": container.name,
        "Image": container.image,
        "ImageID": "",
        "Labels": dict(container.labels),
        "DesiredStatus": "RUNNING",
        "KnownStatus": "PENDING",
        "Limits": {"CPU": container.cpu_shares},
        "Type": "NORMAL",
        "Networks": [NETWORK],
    }


def container_v4(task: TaskPlan, container: ContainerPlan) -> dict[str, Any]:
    network = {
        **NETWORK,
        "AttachmentIndex": 0,
        "MACAddress": "02:00:00:00:00:05",
        "IPv4SubnetCIDRBlock": "10.213.0.0/24",
        "DomainNameServers": ["10.213.0.2"],
        "DomainNameSearchList": ["ec2.internal"],
        "PrivateDNSName": "ip-10-213-0-5.ec2.internal",
        "SubnetGatewayIpv4Address": "10.213.0.1/24",
    }
    return container_v2(task, container) | {
        "LogDriver": "json-file",
        "ContainerARN": container.arn,
        "Networks": [network],
        "Snapshotter": "overlayfs",
    }


def task_v2(task: TaskPlan, **more: Any) -> dict[str, Any]:
    return {
        "Cluster": task.cluster_arn,
        "TaskARN": task.arn,
        "Family": "demo",
        "Revision": "7",
        "DesiredStatus": "RUNNING",
        "KnownStatus": "PROVISIONING",
        "Containers": [container_v2(task, one) for one in task.containers],
        "Limits": {"CPU": 0.25, "Memory": 512},
        **more,
    }


def task_v4(task: TaskPlan, **more: Any) -> dict[str, Any]:
    return task_v2(task, **more) | {
        "LaunchType": "FARGATE",
        "Containers": [container_v4(task, one) for one in task.containers],
        "EphemeralStorageMetrics": {"Utilized": 3, "Reserved": 20480},
        "FaultInjectionEnabled": False,
    }


def without_clock(answer: Answer) -> Any:
    return {name: value for name, value in answer.json.items() if name != "ClockDrift"}


async def test_versions_2_3_and_4_of_container_and_task(endpoint: Endpoint, netns: Path) -> None:
    task = await endpoint.add(netns, "web", "log")
    web = task.containers[0]
    endpoint.desk.answers |= TAGS
    tags = {"TaskTags": {"team": "blue"}}
    golden = {
        "/v2/metadata": task_v2(task),
        "/v2/metadata/": task_v2(task),
        f"/v2/metadata/{web.id}": container_v2(task, web),
        "/v2/metadataWithTags": task_v2(task, **tags),
        "/v2/metadataWithTags/": task_v2(task, **tags),
        f"/v3/{web.metadata_id}": container_v2(task, web),
        f"/v3/{web.metadata_id}/task": task_v2(task),
        f"/v3/{web.metadata_id}/taskWithTags": task_v2(task, **tags),
        f"/v3/{web.metadata_id}/associations/elastic-inference": {"Associations": []},
        f"/v4/{web.metadata_id}": container_v4(task, web),
        f"/v4/{web.metadata_id}/task": task_v4(task),
        f"/v4/{web.metadata_id}/taskWithTags": task_v4(task, **tags),
        f"/v4/{web.metadata_id}/associations/elastic-inference": {"Associations": []},
    }

    for path, body in golden.items():
        for method in ("GET", "POST"):  # answered by two servers
            answer = await fetch(netns, path, method)
            assert (answer.status, answer.kind) == (200, "application/json"), path
            assert without_clock(answer) == body, path
    assert endpoint.desk.asked[0] == ("ListTagsForResource", {"resourceArn": task.arn})


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (
            "/v2/metadata/nobody",
            400,
            "Unable to generate metadata for container 'nobody'",
        ),
        ("/v2/stats/nobody", 400, "Unable to get container stats for: nobody"),
        (
            "/v3/nobody",
            500,
            (
                "V3 container metadata handler: unable to get container ID from request: "
                "unable to get docker ID from v3 endpoint ID: nobody"
            ),
        ),
        (
            "/v3/nobody/task",
            500,
            (
                "V3 task metadata handler: unable to get task arn from request: "
                "unable to get task Arn from v3 endpoint ID: nobody"
            ),
        ),
        (
            "/v3/nobody/task/stats",
            400,
            (
                "V3 task stats handler: unable to get task arn from request: "
                "unable to get task Arn from v3 endpoint ID: nobody"
            ),
        ),
        (
            "/v4/nobody/taskWithTags",
            404,
            (
                "V4 task metadata handler: unable to get task arn from request: "
                "unable to get task Arn from v3 endpoint ID: nobody"
            ),
        ),
        (
            "/v4/nobody/associations/x",
            400,
            (
                "V4 container associations handler: unable to get container ID from request: "
                "unable to get docker ID from v3 endpoint ID: nobody"
            ),
        ),
        (
            "/v4/ID/associations/x/y",
            400,
            "Unable to get association value: no association y",
        ),
        ("/v4/ID/tasks", 500, "failed to get tasks"),
        ("/v4/ID/tasks/stats", 500, "failed to get tasks stats"),
        ("/v4/ID/stats", 500, "Unable to get container stats for: DOCKER"),
        ("/v3/ID/stats", 400, "Unable to get container stats for: DOCKER"),
    ],
)
async def test_what_can_not_be_had_is_a_string_of_json(
    path: str, status: int, text: str, endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")
    web = task.containers[0]

    answer = await fetch(netns, path.replace("ID", web.metadata_id))

    assert (answer.status, answer.kind) == (status, "application/json")
    assert answer.json == text.replace("DOCKER", web.id)


async def test_task_that_is_going_is_nobodys(endpoint: Endpoint, netns: Path) -> None:
    task = await endpoint.add(netns, "web")
    endpoint.tasks.clear()

    answer = await fetch(netns, "/v2/metadata")

    assert (answer.status, answer.json) == (
        400,
        "Unable to get task arn from request: unable to associate '169.254.172.2' with task",
    )
    assert (await fetch(netns, f"/v4/{task.containers[0].metadata_id}")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/api/ID/task-protection/v1/state", "GET, PUT"),
        ("GET", "/api/ID/fault/v1/network-latency/start", "POST"),
    ],
)
async def test_other_methods_are_not_allowed(
    method: str, path: str, allowed: str, endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")

    answer = await fetch(netns, path.replace("ID", task.containers[0].metadata_id), method)

    assert (answer.status, answer.headers["Allow"], answer.body) == (405, allowed, "")


async def test_path_is_cleaned_and_keeps_its_query(endpoint: Endpoint, netns: Path) -> None:
    await endpoint.add(netns, "web")

    answer = await fetch(netns, "//v1/credentials?id=a")

    assert (answer.status, answer.headers["Location"]) == (301, "/v1/credentials?id=a")


async def test_tags_that_can_not_be_had_are_an_error_and_the_rest_is_there(
    endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")
    path = f"/v4/{task.containers[0].metadata_id}/taskWithTags"
    refused = RefusedError("AccessDeniedException", "no", status=400, request_id="r-1")

    away = await fetch(netns, path)
    endpoint.desk.answers["ListTagsForResource"] = refused
    denied = await fetch(netns, path)

    assert (away.status, denied.status) == (200, 200)
    assert away.json["Errors"] == [
        {
            "ErrorField": "TaskTags",
            "ErrorMessage": "the control plane is away",
            "ResourceARN": task.arn,
        }
    ]
    assert denied.json["Errors"] == [
        {
            "ErrorField": "TaskTags",
            "ErrorCode": "AccessDeniedException",
            "ErrorMessage": "no",
            "StatusCode": 400,
            "RequestId": "r-1",
            "ResourceARN": task.arn,
        }
    ]
    assert denied.json["TaskARN"] == task.arn


async def test_protection_is_read_and_set_by_a_task_with_a_role(
    endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web", roleCredentials=role_json())
    path = f"/api/{task.containers[0].metadata_id}/task-protection/v1/state"
    shown = {"protectedTasks": [{"taskArn": task.arn, "protectionEnabled": False}]}
    endpoint.desk.answers |= {"GetTaskProtection": shown, "UpdateTaskProtection": shown}
    wanted = json.dumps({"ProtectionEnabled": True, "ExpiresInMinutes": 5}).encode()

    read = await fetch(netns, path)
    changed = await fetch(netns, path, "PUT", wanted)
    wrong = await fetch(netns, path, "PUT", b"{}")
    large = await fetch(netns, path, "PUT", b" " * 65_537)
    nobody = await fetch(netns, "/api/nobody/task-protection/v1/state")

    assert read.json == {"protection": {"ProtectionEnabled": False, "TaskArn": task.arn}}
    assert read.body.endswith("}\n")  # a line, which a logger passes on when it ends
    assert changed.status == 200
    assert endpoint.desk.asked[1] == (
        "UpdateTaskProtection",
        {
            "cluster": task.cluster_arn,
            "tasks": [task.arn],
            "protectionEnabled": True,
            "expiresInMinutes": 5,
        },
    )
    assert (wrong.status, wrong.json["error"]["Code"]) == (400, "InvalidParameterException")
    assert large.status == 413
    assert (nobody.status, nobody.json["error"]["Code"]) == (404, "ResourceNotFoundException")


async def test_protection_is_refused_without_a_role(endpoint: Endpoint, netns: Path) -> None:
    task = await endpoint.add(netns, "web")

    answer = await fetch(netns, f"/api/{task.containers[0].metadata_id}/task-protection/v1/state")

    assert (answer.status, answer.json["error"]["Code"]) == (403, "AccessDeniedException")
    assert endpoint.desk.asked == []


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ("network-blackhole-port", {"Port": 80, "Protocol": "tcp", "TrafficType": "ingress"}),
        (
            "network-latency",
            {"DelayMilliseconds": 1, "JitterMilliseconds": 0, "Sources": ["192.0.2.1"]},
        ),
    ],
)
async def test_faults_are_not_enabled(
    fault: str, body: dict[str, Any], endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")
    base = f"/api/{task.containers[0].metadata_id}/fault/v1/{fault}"
    asked = json.dumps(body).encode()

    started = await fetch(netns, f"{base}/start", "POST", asked)
    again = await fetch(netns, f"{base}/start", "POST", asked)
    empty = await fetch(netns, base.replace(fault, "network-packet-loss") + "/start", "POST")

    text = f"enableFaultInjection is not enabled for task: {task.arn}"
    assert (started.status, started.json) == (400, {"Error": text})
    assert (again.status, again.body) == (429, "You have reached maximum request limit")
    assert again.headers["X-Rate-Limit-Limit"] == "0.20"
    assert (empty.status, empty.json) == (400, {"Error": "required request body is missing"})


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_61st_request_for_a_path_at_once_is_one_too_many(
    method: str, endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")
    path = f"/v4/{task.containers[0].metadata_id}"
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"

    answers = list[bytes]()
    with connect(netns) as connection:
        for _ in range(300):  # faster than the rate
            connection.sendall(request.encode())
            answers.append(await receive(connection))
    other = await fetch(netns, f"{path}/task", method)

    refused = [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200 OK\r\n")]
    assert refused
    assert not set(refused) & set(answers[:60])
    assert other.status == 200
    head, body = refused[0].decode().split("\r\n\r\n")
    assert body == "You have reached maximum request limit."
    assert set(head.splitlines()) >= {
        "HTTP/1.1 429 Too Many Requests",
        "Content-Type: text/plain; charset=utf-8",
        "X-Rate-Limit-Limit: 40.00",
        "X-Rate-Limit-Duration: 1",
        "X-Rate-Limit-Request-Forwarded-For: 192.0.2.7",
    }
    assert "X-Rate-Limit-Request-Remote-Addr: 169.254.172.2:" in head


async def test_each_route_answers_something_else_than_not_found(
    endpoint: Endpoint, netns: Path
) -> None:
    task = await endpoint.add(netns, "web")
    web = task.containers[0]
    names = {"<id>": web.metadata_id, "<docker id>": web.id}

    async def ask(pattern: str, method: str) -> Answer:
        path = pattern
        for name, value in names.items():
            path = path.replace(name, value)
        return await fetch(netns, path.replace("<", "").replace(">", "").replace(" ", "-"), method)

    async with asyncio.TaskGroup() as asking:
        answers = {
            route.pattern: asking.create_task(
                ask(
                    route.pattern,
                    "GET" if route.methods is None or "GET" in route.methods else "POST",
                )
            )
            for route in ROUTES
        }

    for pattern, answer in answers.items():
        assert answer.result().status not in {404, 405}, pattern
