"""Who may call: signatures of real clients, and what an attacker would try."""

import asyncio
import http.client
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import FARGATE, kind_of
from tests.fixtures.requests import TARGET, post, sign, signed

pytestmark = pytest.mark.one_store


def test_signed_request_is_answered(control_plane: ControlPlane) -> None:
    status, answer = post(control_plane, b"{}", signed(control_plane, "ListClusters"))

    assert status == 200
    assert answer["clusterArns"] == ["arn:aws:ecs:us-east-1:000000000000:cluster/default"]


def test_wrong_secret_is_refused(control_plane: ControlPlane) -> None:
    client = control_plane.client(aws_secret_access_key="x" * 40)

    with pytest.raises(ClientError, match="signature we calculated does not match") as error:
        client.list_clusters()

    assert kind_of(error) == "InvalidSignatureException"


def test_unknown_key_is_refused(control_plane: ControlPlane) -> None:
    client = control_plane.client(aws_access_key_id="AKIAAAAAAAAAAAAAAAAA")

    with pytest.raises(ClientError, match="security token included in the request is inv") as error:
        client.list_clusters()

    assert kind_of(error) == "UnrecognizedClientException"


def test_other_region_is_refused(control_plane: ControlPlane) -> None:
    client = control_plane.client(region_name="eu-west-1")

    with pytest.raises(ClientError, match="should be scoped to a valid region") as error:
        client.list_clusters()

    assert kind_of(error) == "InvalidSignatureException"


def test_request_without_signature_is_refused(control_plane: ControlPlane) -> None:
    status, answer = post(control_plane, b"{}", {"X-Amz-Target": f"{TARGET}.ListClusters"})

    assert (status, answer["__type"]) == (400, "MissingAuthenticationTokenException")


def test_garbled_authorization_is_refused(control_plane: ControlPlane) -> None:
    headers = {**signed(control_plane, "ListClusters"), "Authorization": "AWS4-HMAC-SHA256 x"}

    status, answer = post(control_plane, b"{}", headers)

    assert (status, answer["__type"]) == (400, "IncompleteSignatureException")


def test_body_that_was_changed_is_refused(control_plane: ControlPlane) -> None:
    headers = signed(control_plane, "CreateCluster", b'{"clusterName":"a"}')

    status, answer = post(control_plane, b'{"clusterName":"b"}', headers)

    assert (status, answer["__type"]) == (400, "InvalidSignatureException")


def test_body_hash_of_the_header_is_not_believed(control_plane: ControlPlane) -> None:
    headers = {
        "Host": urlsplit(control_plane.url).netloc,
        "X-Amz-Target": f"{TARGET}.CreateCluster",
        "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD",
    }
    headers = sign("POST", control_plane.url, control_plane.keys["admin"], headers=headers)

    status, answer = post(control_plane, b'{"clusterName":"b"}', headers)

    assert (status, answer["__type"]) == (400, "InvalidSignatureException")


def test_operation_that_was_changed_is_refused(control_plane: ControlPlane) -> None:
    headers = {
        **signed(control_plane, "ListClusters"),
        "X-Amz-Target": f"{TARGET}.CreateCluster",
    }

    status, answer = post(control_plane, b"{}", headers)

    assert (status, answer["__type"]) == (400, "InvalidSignatureException")


def test_operation_outside_the_signature_is_refused(control_plane: ControlPlane) -> None:
    headers = sign(
        "POST",
        control_plane.url,
        control_plane.keys["admin"],
        headers={"Host": urlsplit(control_plane.url).netloc},
        body=b"{}",
    )

    status, answer = post(
        control_plane, b"{}", {**headers, "X-Amz-Target": f"{TARGET}.ListClusters"}
    )

    assert (status, answer["__type"]) == (400, "InvalidSignatureException")
    assert "x-amz-target" in answer["message"]


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        pytest.param(-6, "Signature expired: ", id="replayed"),
        pytest.param(6, "Signature not yet current: ", id="from the future"),
    ],
)
def test_signature_of_another_time_is_refused(
    minutes: int, text: str, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = datetime.now(UTC) + timedelta(minutes=minutes)
    with monkeypatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: then)
        headers = signed(control_plane, "ListClusters")

    status, answer = post(control_plane, b"{}", headers)

    assert (status, answer["__type"]) == (400, "InvalidSignatureException")
    assert answer["message"].startswith(text)


def test_agent_can_not_run_tasks(control_plane: ControlPlane) -> None:
    with pytest.raises(
        ClientError, match="user/agent is not authorized to perform: ecs:R"
    ) as error:
        control_plane.client("agent").run_task(taskDefinition="x")

    assert kind_of(error) == "AccessDeniedException"


async def test_admin_can_not_report_for_agents(ecs: Any, simulated_agent: SimulatedAgent) -> None:
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    started = await asyncio.to_thread(
        ecs.run_task,
        taskDefinition="web",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-default"]}},
    )

    with pytest.raises(ClientError, match="registered with another key") as error:
        await asyncio.to_thread(
            ecs.submit_task_state_change, task=started["tasks"][0]["taskArn"], status="STOPPED"
        )

    assert kind_of(error) == "AccessDeniedException"


async def test_admin_can_not_register_again_what_is_an_agent_s(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    with pytest.raises(ClientError, match="registered with another key") as error:
        await asyncio.to_thread(
            ecs.register_container_instance, containerInstanceArn=simulated_agent.instance_arn
        )

    assert kind_of(error) == "AccessDeniedException"


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        pytest.param("describe_tasks", {"tasks": ["0" * 32]}, id="read tasks"),
        pytest.param("stop_task", {"task": "0" * 32}, id="stop tasks"),
        pytest.param("list_tasks", {}, id="list tasks"),
        pytest.param("list_clusters", {}, id="list clusters"),
        pytest.param("create_cluster", {"clusterName": "x"}, id="create clusters"),
        pytest.param("describe_task_definition", {"taskDefinition": "web"}, id="read definitions"),
    ],
)
def test_stolen_key_of_an_agent_is_no_use_for(
    operation: str, request_: dict[str, Any], control_plane: ControlPlane
) -> None:
    with pytest.raises(ClientError) as error:
        getattr(control_plane.client("agent"), operation)(**request_)

    assert kind_of(error) == "AccessDeniedException"


async def test_websocket_is_for_agents_alone(control_plane: ControlPlane) -> None:
    agent = SimulatedAgent(control_plane)
    await agent.register()
    control_plane.keys["agent"] = control_plane.keys["admin"]

    with pytest.raises(Exception, match="400"):
        await agent.connect()

    await agent.disconnect()


async def test_websocket_of_an_unknown_instance_is_refused(control_plane: ControlPlane) -> None:
    agent = SimulatedAgent(control_plane)
    await agent.register()

    with pytest.raises(Exception, match="400"):
        await agent.connect(containerInstanceArn=agent.instance_arn[:-4] + "0000")

    await agent.disconnect()


async def test_agent_can_not_speak_for_an_instance_of_another_key(
    control_plane: ControlPlane, start_control_plane: StartControlPlane
) -> None:
    agent = SimulatedAgent(control_plane)
    await agent.register()
    keys = control_plane.state_dir / "keys.toml"
    keys.write_text(
        keys.read_text() + f'\n[[key]]\naccess_key_id = "{"B" * 20}"\n'
        f'secret_access_key = "{"s" * 40}"\nprincipal = "agent"\n'
    )
    intruder = start_control_plane().client(
        "agent", aws_access_key_id="B" * 20, aws_secret_access_key="s" * 40
    )

    with pytest.raises(ClientError) as error:
        intruder.register_container_instance(
            cluster="default", containerInstanceArn=agent.instance_arn
        )

    assert kind_of(error) == "AccessDeniedException"


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("application/json", id="plain JSON"),
        pytest.param("application/x-amz-cbor-1.1", id="CBOR"),
        pytest.param("text/plain", id="text"),
    ],
)
def test_other_protocol_is_not_known(content_type: str, control_plane: ControlPlane) -> None:
    headers = {
        "Content-Type": content_type,
        "Host": urlsplit(control_plane.url).netloc,
        "X-Amz-Target": f"{TARGET}.ListClusters",
    }
    key = control_plane.keys["admin"]
    headers = sign("POST", control_plane.url, key, body=b"{}", headers=headers)

    status, answer = post(control_plane, b"{}", headers)

    assert (status, answer["__type"]) == (400, "UnknownOperationException")
    assert "Content-Type" in answer["message"]


def test_charset_of_the_body_may_be_named(control_plane: ControlPlane) -> None:
    headers = {
        "Content-Type": "application/x-amz-json-1.1; charset=utf-8",
        "Host": urlsplit(control_plane.url).netloc,
        "X-Amz-Target": f"{TARGET}.ListClusters",
    }
    key = control_plane.keys["admin"]
    headers = sign("POST", control_plane.url, key, body=b"", headers=headers)

    status, answer = post(control_plane, b"", headers)

    assert (status, answer["clusterArns"][0][-7:]) == (200, "default")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/", id="read the root"),
        pytest.param("PUT", "/", id="put to the root"),
        pytest.param("POST", "/tasks", id="another path"),
        pytest.param("GET", "/../etc/passwd", id="path upwards"),
    ],
)
def test_there_is_nothing_at(method: str, path: str, control_plane: ControlPlane) -> None:
    connection = http.client.HTTPConnection(urlsplit(control_plane.url).netloc, timeout=10)
    connection.request(method, path)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()

    assert (response.status, answer["__type"]) == (404, "UnknownOperationException")
    assert response.headers["x-amzn-RequestId"]


def test_what_is_supported_is_told_to_callers_alone(control_plane: ControlPlane) -> None:
    headers = signed(control_plane, "CreateDaemon")

    refused = post(control_plane, b"{}", {**headers, "Authorization": ""})
    told = post(control_plane, b"{}", headers)

    assert refused[1]["__type"] == "IncompleteSignatureException"
    assert told[1]["__type"] == "UnsupportedFeatureException"
