"""What Cloud Map and `serviceRegistries` refuse, and in which words."""

import json
from typing import Any

import boto3
import pytest

from tests.fixtures.controlplane import ControlPlane, make_cloud_map
from tests.fixtures.discovery import NAMESPACE, SRV, VPC, A, make_namespace, make_service
from tests.fixtures.ecs import FARGATE, create_service, refusal
from tests.fixtures.requests import post, sign

pytestmark = pytest.mark.one_store

CNAME = {"Type": "CNAME", "TTL": 5}
WEIGHTED = {"RoutingPolicy": "WEIGHTED"}


@pytest.fixture
def cloudmap(control_plane: ControlPlane) -> Any:
    return make_cloud_map(control_plane)


@pytest.fixture
def corp(cloudmap: Any) -> str:
    return make_namespace(cloudmap)


def test_namespaces_that_can_not_be_are_refused(cloudmap: Any) -> None:
    call = cloudmap.create_private_dns_namespace
    make_namespace(cloudmap)

    assert refusal(call, Name="a..b", Vpc=VPC)[0] == "InvalidInput"
    assert refusal(call, Name=f"{'a' * 64}.b", Vpc=VPC)[0] == "InvalidInput"
    assert refusal(call, Name="-a.b", Vpc=VPC)[0] == "InvalidInput"
    assert refusal(call, Name="a.b", Vpc="vpc-no") == (
        "InvalidInput",
        "The VPC vpc-no does not exist.",
    )
    assert refusal(call, Name=NAMESPACE.upper(), Vpc=VPC)[0] == "NamespaceAlreadyExists"
    assert refusal(cloudmap.create_http_namespace, Name="a b")[0] == "InvalidInput"
    filters = [{"Name": "RESOURCE_OWNER", "Values": ["SELF"], "Condition": "IN"}]
    assert refusal(cloudmap.list_namespaces, Filters=filters)[0] == "InvalidInput"
    assert refusal(cloudmap.list_namespaces, NextToken="%")[0] == "InvalidInput"
    assert refusal(cloudmap.get_operation, OperationId="no")[0] == "OperationNotFound"
    assert refusal(cloudmap.delete_namespace, Id="ns-no")[0] == "NamespaceNotFound"
    assert refusal(cloudmap.get_service, Id="srv-no")[0] == "ServiceNotFound"


def test_services_that_can_not_be_are_refused(cloudmap: Any, corp: str) -> None:
    def say(**request: Any) -> str:
        kind, text = refusal(
            cloudmap.create_service,
            **{"Name": "web", "DnsConfig": {"NamespaceId": corp, "DnsRecords": [A]}, **request},
        )
        assert kind == "InvalidInput"
        return text

    near = make_namespace(cloudmap, "near")
    assert "HealthCheckCustomConfig" in say(HealthCheckConfig={"Type": "HTTP"})
    assert "different namespaces" in say(NamespaceId=near)
    assert "NamespaceId is required" in say(DnsConfig={"DnsRecords": [A]})
    plain = cloudmap.create_http_namespace(Name="plain")["OperationId"]
    http = cloudmap.get_operation(OperationId=plain)["Operation"]["Targets"]["NAMESPACE"]
    assert "has no DNS records" in say(DnsConfig={"NamespaceId": http, "DnsRecords": [A]})
    made = cloudmap.create_service(Name="web", NamespaceId=http)["Service"]
    assert made["Type"] == "HTTP"
    change = {"DnsConfig": {"DnsRecords": [SRV]}}
    dns = make_service(cloudmap, corp)
    kind, text = refusal(cloudmap.update_service, Id=dns["Id"], Service=change)
    assert (kind, "no records of further types" in text) == ("InvalidInput", True)


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        pytest.param({"AWS_INIT_HEALTH_STATUS": "WELL"}, "must be HEALTHY", id="health"),
        pytest.param({"AWS_ALIAS_DNS_NAME": "a"}, "is not supported here", id="alias"),
        pytest.param({"a b": "c"}, "printable ASCII", id="key"),
        pytest.param(
            {"long": "a" * 1024, **{str(n): "a" * 1000 for n in range(4)}},
            "5000 characters",
            id="long",
        ),
        pytest.param({str(n): "a" for n in range(31)}, "can have 30", id="many"),
    ],
)
def test_instances_that_can_not_be_are_refused(
    cloudmap: Any, corp: str, attributes: dict[str, str], text: str
) -> None:
    service = make_service(cloudmap, corp)
    base = {"AWS_INSTANCE_IPV4": "10.0.0.1"}
    request = {"ServiceId": service["Id"], "InstanceId": "one"}
    kind, said = refusal(cloudmap.register_instance, **request, Attributes={**base, **attributes})

    assert (kind, text in said) == ("InvalidInput", True)


def test_port_of_a_registry_is_told_in_one_of_two_ways(ecs: Any, cloudmap: Any, corp: str) -> None:
    ecs.register_task_definition(**FARGATE)
    arn = make_service(cloudmap, corp, records=[SRV])["Arn"]
    both_or_none = (
        "InvalidParameterException",
        (
            "Specify a value for either 'port' or the 'containerName' and 'containerPort'"
            " combination, but not both. Remove one and retry."
        ),
    )

    def say(**registry: Any) -> tuple[str, str]:
        registries = [{"registryArn": arn, **registry}]
        return refusal(lambda: create_service(ecs, serviceRegistries=registries))

    named = {"containerName": "app", "containerPort": 80}
    assert say() == both_or_none
    assert say(port=80, **named) == both_or_none
    assert say(containerName="app") == both_or_none
    assert say(port=80, containerPort=80) == both_or_none
    assert say(port=0)[1] == "port must be between 1 and 65535."
    assert say(**named)[1] == "The container app did not have a container port 80 defined."
    assert say(**{**named, "containerName": "no"})[1] == (
        "The container no does not exist in the task definition."
    )
    made = create_service(ecs, serviceRegistries=[{"registryArn": arn, "port": 80}])
    assert made["serviceRegistries"] == [{"registryArn": arn, "port": 80}]


def test_registries_that_can_not_be_are_refused(ecs: Any, cloudmap: Any, corp: str) -> None:
    ecs.register_task_definition(**FARGATE)
    a = {"registryArn": make_service(cloudmap, corp)["Arn"]}
    cname = {"NamespaceId": corp, "DnsRecords": [CNAME], **WEIGHTED}
    other = {"registryArn": make_service(cloudmap, corp, "other", DnsConfig=cname)["Arn"]}

    def say(*registries: Any) -> str:
        return refusal(lambda: create_service(ecs, serviceRegistries=registries))[1]

    assert "can have one service registry" in say(a, other)
    assert "with CNAME records" in say(other)
    assert "does not exist" in say({"registryArn": a["registryArn"] + "x"})
    assert "does not exist" in say({})
    assert "do not require a value for 'containerPort'" in say({**a, "containerPort": 80})


def test_requests_of_another_shape_are_refused(control_plane: ControlPlane) -> None:
    def say(operation: str, body: Any, service: str = "servicediscovery") -> tuple[int, str]:
        raw = json.dumps(body).encode()
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"Route53AutoNaming_v20170314.{operation}",
        }
        url, key = f"{control_plane.url}/", control_plane.keys["admin"]
        signed = sign("POST", url, key, body=raw, headers=headers, service=service)
        status, answer = post(control_plane, raw, signed)
        return status, answer["__type"]

    assert say("GetNamespace", {}) == (400, "InvalidInput")
    assert say("GetNamespace", {"Id": "a", "New": 1}) == (400, "InvalidInput")
    assert say("GetNamespace", {"Id": 1}) == (400, "SerializationException")
    assert say("UpdateServiceAttributes", {}) == (400, "UnsupportedFeatureException")
    assert say("NoSuchThing", {}) == (400, "UnknownOperationException")
    assert say("ListNamespaces", {}, "ecs") == (400, "InvalidSignatureException")


def test_boto3_finds_instances_with_the_variables_of_the_stack(
    control_plane: ControlPlane, cloudmap: Any, corp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it asks `data-127.0.0.1`."""
    make_service(cloudmap, corp)
    key, secret = control_plane.keys["admin"]
    for name, value in {
        "AWS_ENDPOINT_URL_SERVICEDISCOVERY": control_plane.url,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("servicediscovery")

    found = client.discover_instances(NamespaceName=NAMESPACE, ServiceName="web")
    assert found["Instances"] == []
