"""Cloud Map as its clients use it: a real client, a real control plane."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.controlplane import ControlPlane, StartControlPlane, make_cloud_map, make_ec2

VPC = "vpc-default"
A_RECORDS: dict[str, Any] = {"DnsRecords": [{"Type": "A", "TTL": 10}]}


@pytest.fixture
def plane(start_control_plane: StartControlPlane) -> ControlPlane:
    return start_control_plane()


@pytest.fixture
def cloud_map(plane: ControlPlane) -> Any:
    return make_cloud_map(plane)


def refused(call: Callable[..., Any], **request: Any) -> str:
    """Return the code of the error that a call ends with."""
    with pytest.raises(ClientError) as refusal:
        call(**request)
    code: str = refusal.value.response["Error"]["Code"]
    return code


def make_namespace(cloud_map: Any, name: str = "local", **more: Any) -> str:
    """Make a private namespace as Terraform does, which asks how the operation went."""
    started = cloud_map.create_private_dns_namespace(Name=name, Vpc=VPC, **more)
    operation = cloud_map.get_operation(OperationId=started["OperationId"])["Operation"]
    assert (operation["Status"], operation["Type"]) == ("SUCCESS", "CREATE_NAMESPACE")
    made: str = operation["Targets"]["NAMESPACE"]
    return made


def make_service(cloud_map: Any, namespace: str, name: str = "web", **more: Any) -> str:
    request = {"DnsConfig": A_RECORDS, **more}
    made: str = cloud_map.create_service(Name=name, NamespaceId=namespace, **request)["Service"][
        "Id"
    ]
    return made


def register(cloud_map: Any, service: str, instance: str, **attributes: str) -> None:
    cloud_map.register_instance(
        ServiceId=service,
        InstanceId=instance,
        Attributes={"AWS_INSTANCE_IPV4": "10.0.0.9", **attributes},
    )


def test_namespace_is_made_shown_and_removed(cloud_map: Any) -> None:
    tags = [{"Key": "team", "Value": "a"}]
    namespace = make_namespace(cloud_map, "Prod.Local", Description="mine", Tags=tags)

    shown = cloud_map.get_namespace(Id=namespace)["Namespace"]
    assert (shown["Name"], shown["Type"], shown["ServiceCount"]) == ("prod.local", "DNS_PRIVATE", 0)
    assert shown["Properties"]["DnsProperties"]["SOA"] == {"TTL": 15}
    assert shown["Arn"].endswith(f":namespace/{namespace}")
    assert cloud_map.list_tags_for_resource(ResourceARN=shown["Arn"])["Tags"] == tags
    (listed,) = cloud_map.list_namespaces(
        Filters=[{"Name": "TYPE", "Values": ["DNS_PRIVATE"], "Condition": "EQ"}]
    )["Namespaces"]
    assert listed["Id"] == namespace

    cloud_map.delete_namespace(Id=namespace)

    assert refused(cloud_map.get_namespace, Id=namespace) == "NamespaceNotFound"


def test_same_request_is_answered_by_the_same_operation(cloud_map: Any) -> None:
    one, other = (
        cloud_map.create_private_dns_namespace(Name="local", Vpc=VPC, CreatorRequestId="1")
        for _ in range(2)
    )

    assert one["OperationId"] == other["OperationId"]
    assert len(cloud_map.list_namespaces()["Namespaces"]) == 1


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param({"Name": "local", "Vpc": "vpc-none"}, "InvalidInput", id="no such VPC"),
        pytest.param({"Name": "a b", "Vpc": VPC}, "InvalidInput", id="no name"),
        pytest.param({"Name": "taken", "Vpc": VPC}, "NamespaceAlreadyExists", id="taken"),
    ],
)
def test_namespace_that_cannot_be_is_refused(
    cloud_map: Any, request_: dict[str, str], code: str
) -> None:
    make_namespace(cloud_map, "taken")

    assert refused(cloud_map.create_private_dns_namespace, **request_) == code


def test_service_is_made_shown_changed_and_removed(cloud_map: Any) -> None:
    namespace = make_namespace(cloud_map)
    service = make_service(cloud_map, namespace, HealthCheckCustomConfig={"FailureThreshold": 1})
    change = {"Description": "new", "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 5}]}}
    cloud_map.update_service(Id=service, Service=change)

    shown = cloud_map.get_service(Id=service)["Service"]
    assert shown["DnsConfig"] == {
        "NamespaceId": namespace,
        "RoutingPolicy": "MULTIVALUE",
        "DnsRecords": [{"Type": "A", "TTL": 5}],
    }
    assert (shown["Type"], shown["Description"]) == ("DNS_HTTP", "new")
    filters = [{"Name": "NAMESPACE_ID", "Values": [namespace]}]
    assert [one["Id"] for one in cloud_map.list_services(Filters=filters)["Services"]] == [service]
    assert refused(cloud_map.delete_namespace, Id=namespace) == "ResourceInUse"

    cloud_map.delete_service(Id=service)

    assert refused(cloud_map.get_service, Id=service) == "ServiceNotFound"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"Name": "-web"}, id="name"),
        pytest.param({"Name": f"{'a' * 63}.{'b' * 60}"}, id="SRV names too long"),
        pytest.param({"HealthCheckConfig": {"Type": "TCP"}}, id="health check of Route 53"),
        pytest.param(
            {"DnsConfig": {"DnsRecords": [{"Type": "CNAME", "TTL": 1}, {"Type": "A", "TTL": 1}]}},
            id="CNAME and A",
        ),
        pytest.param({"DnsConfig": {"DnsRecords": [{"Type": "CNAME", "TTL": 1}]}}, id="multivalue"),
    ],
)
def test_service_that_cannot_be_is_refused(cloud_map: Any, request_: dict[str, Any]) -> None:
    namespace = make_namespace(cloud_map, ".".join(["c" * 60] * 3))
    srv = {"DnsRecords": [{"Type": "SRV", "TTL": 1}]}
    request = {"Name": "web", "NamespaceId": namespace, "DnsConfig": srv, **request_}

    assert refused(cloud_map.create_service, **request) == "InvalidInput"


def test_instances_are_registered_discovered_and_forgotten(cloud_map: Any) -> None:
    service = make_service(
        cloud_map, make_namespace(cloud_map), HealthCheckCustomConfig={"FailureThreshold": 1}
    )
    register(cloud_map, service, "one", stage="test")
    register(cloud_map, service, "two")
    cloud_map.update_instance_custom_health_status(
        ServiceId=service, InstanceId="two", Status="UNHEALTHY"
    )

    def discover(**more: Any) -> list[str]:
        found = cloud_map.discover_instances(NamespaceName="local", ServiceName="web", **more)
        return [one["InstanceId"] for one in found["Instances"]]

    assert discover() == ["one"]
    assert discover(HealthStatus="ALL") == ["one", "two"]
    assert discover(HealthStatus="UNHEALTHY") == ["two"]
    assert discover(QueryParameters={"stage": "test"}) == ["one"]
    assert cloud_map.get_instances_health_status(ServiceId=service)["Status"] == {
        "one": "HEALTHY",
        "two": "UNHEALTHY",
    }
    assert refused(cloud_map.delete_service, Id=service) == "ResourceInUse"
    for instance in ("one", "two"):
        cloud_map.deregister_instance(ServiceId=service, InstanceId=instance)
    assert discover(HealthStatus="ALL") == []
    gone = {"ServiceId": service, "InstanceId": "one"}
    assert refused(cloud_map.deregister_instance, **gone) == "InstanceNotFound"


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({"AWS_INSTANCE_IPV4": "fe80::1"}, id="other version"),
        pytest.param({"AWS_INSTANCE_IPV6": "fe80::1%eth0"}, id="zone"),
        pytest.param({"AWS_INSTANCE_PORT": "0"}, id="port"),
    ],
)
def test_instance_with_an_attribute_that_cannot_be_is_refused(
    cloud_map: Any, attributes: dict[str, str]
) -> None:
    service = make_service(cloud_map, make_namespace(cloud_map))
    given = {"AWS_INSTANCE_IPV4": "10.0.0.9", **attributes}

    request = {"ServiceId": service, "InstanceId": "one", "Attributes": given}
    assert refused(cloud_map.register_instance, **request) == "InvalidInput"


def test_health_of_a_service_without_a_check_does_not_count(cloud_map: Any) -> None:
    service = make_service(cloud_map, make_namespace(cloud_map))
    register(cloud_map, service, "one", AWS_INIT_HEALTH_STATUS="UNHEALTHY")

    (found,) = cloud_map.discover_instances(
        NamespaceName="local", ServiceName="web", HealthStatus="HEALTHY"
    )["Instances"]

    assert found["HealthStatus"] == "HEALTHY"
    status = {"ServiceId": service, "InstanceId": "one", "Status": "UNHEALTHY"}
    code = refused(cloud_map.update_instance_custom_health_status, **status)
    assert code == "CustomHealthNotFound"


def test_lists_come_in_pages(cloud_map: Any) -> None:
    made = {make_namespace(cloud_map, f"n{number}.local") for number in range(3)}

    pages = list(
        cloud_map.get_paginator("list_namespaces").paginate(PaginationConfig={"PageSize": 2})
    )

    assert [len(page["Namespaces"]) for page in pages] == [2, 1]
    assert {one["Id"] for page in pages for one in page["Namespaces"]} == made


def test_what_is_not_done_and_what_does_not_exist_is_told(
    cloud_map: Any, plane: ControlPlane
) -> None:
    assert refused(cloud_map.create_public_dns_namespace, Name="example.com") == (
        "UnsupportedFeatureException"
    )
    assert refused(cloud_map.get_operation, OperationId="none") == "OperationNotFound"
    with pytest.raises(ClientError) as refusal:
        make_ec2(plane).describe_vpcs(VpcIds=["vpc-none"])
    assert refusal.value.response["Error"]["Code"] == "InvalidVpcID.NotFound"
