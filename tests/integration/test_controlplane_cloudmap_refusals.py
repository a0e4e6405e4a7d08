"""What Cloud Map and `serviceRegistries` refuse, and in which words."""

import json
from typing import Any

import boto3
import pytest

from tests.fixtures.controlplane import ControlPlane, make_discovery
from tests.fixtures.discovery import NAMESPACE, SRV, VPC, A, make_namespace, make_service
from tests.fixtures.ecs import FARGATE, create_service, refusal
from tests.fixtures.requests import post, sign

pytestmark = pytest.mark.one_store

LONG = ".".join(["a" * 60] * 4)
"""243 characters."""
CNAME = {"Type": "CNAME", "TTL": 5}
WEIGHTED = {"RoutingPolicy": "WEIGHTED"}


@pytest.fixture
def cloudmap(control_plane: ControlPlane) -> Any:
    return make_discovery(control_plane)


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
    assert refusal(cloudmap.create_public_dns_namespace, Name="example.com") == (
        "InvalidInput",
        "Public DNS namespaces are not supported here: use CreatePrivateDnsNamespace.",
    )
    assert refusal(cloudmap.create_http_namespace, Name="a b")[0] == "InvalidInput"
    filters = [{"Name": "RESOURCE_OWNER", "Values": ["SELF"], "Condition": "IN"}]
    assert refusal(cloudmap.list_namespaces, Filters=filters)[0] == "InvalidInput"
    assert refusal(cloudmap.list_namespaces, NextToken="%")[0] == "InvalidInput"
    assert refusal(cloudmap.get_operation, OperationId="no")[0] == "OperationNotFound"
    assert refusal(cloudmap.delete_namespace, Id="ns-no")[0] == "NamespaceNotFound"
    assert refusal(cloudmap.get_service, Id="srv-no")[0] == "ServiceNotFound"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"DnsRecords": []}, "one or more records", id="no record"),
        pytest.param({"DnsRecords": [A, A]}, "each of another type", id="twice"),
        pytest.param({"DnsRecords": [A, CNAME], **WEIGHTED}, "can't be together", id="cname and a"),
        pytest.param({"DnsRecords": [CNAME]}, "needs the RoutingPolicy", id="cname multivalue"),
    ],
)
def test_records_that_can_not_be_are_refused(
    cloudmap: Any, corp: str, change: dict[str, Any], text: str
) -> None:
    config = {"NamespaceId": corp, **change}
    kind, said = refusal(cloudmap.create_service, Name="web", DnsConfig=config)

    assert (kind, text in said) == ("InvalidInput", True)


def test_services_that_can_not_be_are_refused(cloudmap: Any, corp: str) -> None:
    def say(**request: Any) -> str:
        kind, text = refusal(
            cloudmap.create_service,
            **{"Name": "web", "DnsConfig": {"NamespaceId": corp, "DnsRecords": [A]}, **request},
        )
        assert kind == "InvalidInput"
        return text

    srv = {"NamespaceId": corp, "DnsRecords": [SRV]}
    deep = ".".join(["a" * 60] * 2)
    far = make_namespace(cloudmap, LONG)
    of_far = {"NamespaceId": far, "DnsRecords": [A]}
    assert "no name of the DNS" in say(Name="a..b")
    assert "no name of the DNS" in say(Name=".")
    assert "at most 127 characters" in say(Name=LONG)
    assert "longer than 253 characters" in say(Name=deep, DnsConfig=of_far)
    near = make_namespace(cloudmap, LONG[:216])
    of_near = {**srv, "NamespaceId": near}
    assert "of an instance, 32 characters before" in say(Name="webserver", DnsConfig=of_near)
    assert "HealthCheckCustomConfig" in say(HealthCheckConfig={"Type": "HTTP"})
    assert "different namespaces" in say(NamespaceId=near)
    assert "NamespaceId is missing" in say(DnsConfig={"DnsRecords": [A]})
    plain = cloudmap.create_http_namespace(Name="plain")["OperationId"]
    http = cloudmap.get_operation(OperationId=plain)["Operation"]["Targets"]["NAMESPACE"]
    assert "DNS namespaces only" in say(DnsConfig={"NamespaceId": http, "DnsRecords": [A]})
    made = cloudmap.create_service(Name="web", NamespaceId=http)["Service"]
    assert made["Type"] == "HTTP"
    change = {"DnsConfig": {"DnsRecords": [SRV]}}
    dns = make_service(cloudmap, corp)
    kind, text = refusal(cloudmap.update_service, Id=dns["Id"], Service=change)
    assert (kind, "can't be added" in text) == ("InvalidInput", True)


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        pytest.param({}, "AWS_INSTANCE_IPV4 is missing", id="no address"),
        pytest.param({"AWS_INSTANCE_IPV4": "10.0.0"}, "must be an IPv4 address", id="ipv4"),
        pytest.param({"AWS_INSTANCE_IPV6": "fe80::1%eth0"}, "without a scope", id="scope"),
        pytest.param({"AWS_INSTANCE_IPV6": "10.0.0.1"}, "must be an IPv6 address", id="ipv6"),
        pytest.param({"AWS_INSTANCE_PORT": "70000"}, "must be a port", id="port"),
        pytest.param({"AWS_INIT_HEALTH_STATUS": "WELL"}, "must be HEALTHY", id="health"),
        pytest.param({"AWS_ALIAS_DNS_NAME": "a"}, "is not supported here", id="alias"),
        pytest.param({"a b": "c"}, "printable ASCII", id="key"),
        pytest.param(
            {"long": "a" * 1024, **{str(n): "a" * 1000 for n in range(4)}}, "5000", id="long"
        ),
        pytest.param({str(n): "a" for n in range(31)}, "at most 30", id="many"),
    ],
)
def test_instances_that_can_not_be_are_refused(
    cloudmap: Any, corp: str, attributes: dict[str, str], text: str
) -> None:
    service = make_service(cloudmap, corp)
    base = {"AWS_INSTANCE_IPV4": "10.0.0.1"} if attributes else {}
    request = {"ServiceId": service["Id"], "InstanceId": "one"}
    kind, said = refusal(cloudmap.register_instance, **request, Attributes={**base, **attributes})

    assert (kind, text in said) == ("InvalidInput", True)


def test_instance_of_srv_records_has_a_name_of_the_dns(cloudmap: Any, corp: str) -> None:
    service = make_service(cloudmap, corp, records=[SRV])
    attributes = {"AWS_INSTANCE_PORT": "80", "AWS_INSTANCE_IPV4": "10.0.0.1"}

    def say(id_: str, **more: str) -> str:
        return refusal(
            cloudmap.register_instance,
            ServiceId=service["Id"],
            InstanceId=id_,
            Attributes=more or attributes,
        )[1]

    assert "no name of the DNS" in say("a/b")
    assert "no name of the DNS" in say("a" * 64)
    assert "AWS_INSTANCE_IPV4 or AWS_INSTANCE_IPV6 is missing" in say("a", AWS_INSTANCE_PORT="80")


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

    assert "Multiple service registries" in say(a, other)
    assert "A, AAAA or SRV records" in say(other)
    assert "does not exist" in say({"registryArn": a["registryArn"] + "x"})
    assert "registryArn is missing" in say({})
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
    assert say("UpdateServiceAttributes", {}) == (400, "InvalidInput")
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
