"""Cloud Map by a real client: what is repeated, filtered, changed, and who may do it."""

from typing import Any

import pytest

from tests.fixtures.controlplane import (
    ControlPlane,
    StartControlPlane,
    add_principal,
    make_cloud_map,
    make_ec2,
)
from tests.fixtures.discovery import (
    AAAA,
    NAMESPACE,
    SRV,
    VPC,
    A,
    make_namespace,
    make_service,
)
from tests.fixtures.ecs import refusal

ARN = "arn:aws:servicediscovery:us-east-1:000000000000:"


@pytest.fixture
def cloudmap(control_plane: ControlPlane) -> Any:
    return make_cloud_map(control_plane)


def discover(cloudmap: Any, **more: Any) -> list[str]:
    answer = cloudmap.discover_instances(NamespaceName=NAMESPACE, ServiceName="web", **more)
    return [instance["InstanceId"] for instance in answer["Instances"]]


def register(cloudmap: Any, service: Any, id_: str, **attributes: str) -> None:
    attributes = {"AWS_INSTANCE_IPV4": "10.1.0.1", **attributes}
    cloudmap.register_instance(ServiceId=service["Id"], InstanceId=id_, Attributes=attributes)


def test_request_that_is_repeated_makes_nothing_twice(cloudmap: Any) -> None:
    request = {"Name": NAMESPACE, "Vpc": VPC, "CreatorRequestId": "one"}
    first = cloudmap.create_private_dns_namespace(**request)["OperationId"]
    again = cloudmap.create_private_dns_namespace(**request)["OperationId"]
    id_ = cloudmap.list_namespaces()["Namespaces"][0]["Id"]
    service = make_service(cloudmap, id_, CreatorRequestId="two")
    same = make_service(cloudmap, id_, CreatorRequestId="two")

    assert (again, same["Id"]) == (first, service["Id"])
    other = {**request, "CreatorRequestId": "other"}
    with pytest.raises(cloudmap.exceptions.NamespaceAlreadyExists) as namespace_exists:
        cloudmap.create_private_dns_namespace(**other)
    assert namespace_exists.value.response["NamespaceId"] == id_
    with pytest.raises(cloudmap.exceptions.ServiceAlreadyExists) as service_exists:
        make_service(cloudmap, id_, name="WEB", CreatorRequestId="two", records=[SRV])
    assert service_exists.value.response["ServiceArn"] == service["Arn"]


def test_lists_have_filters_and_pages(cloudmap: Any) -> None:
    corp = make_namespace(cloudmap)
    cloudmap.create_http_namespace(Name="plain")
    web, db = (make_service(cloudmap, corp, name) for name in ("web", "db"))

    def names(*filters: Any) -> list[str]:
        return [n["Name"] for n in cloudmap.list_namespaces(Filters=filters)["Namespaces"]]

    pages = cloudmap.get_paginator("list_services").paginate(
        Filters=[{"Name": "NAMESPACE_ID", "Values": [corp]}], PaginationConfig={"PageSize": 1}
    )
    assert sorted(names()) == [NAMESPACE, "plain"]
    assert names({"Name": "TYPE", "Values": ["DNS_PRIVATE"]}) == [NAMESPACE]
    assert names({"Name": "NAME", "Values": ["pl"], "Condition": "BEGINS_WITH"}) == ["plain"]
    assert names({"Name": "RESOURCE_OWNER", "Values": ["OTHER_ACCOUNTS"]}) == []
    assert sorted(s["Id"] for page in pages for s in page["Services"]) == sorted(
        [web["Id"], db["Id"]]
    )
    operations = cloudmap.list_operations(
        Filters=[
            {"Name": "TYPE", "Values": ["CREATE_NAMESPACE"], "Condition": "EQ"},
            {"Name": "UPDATE_DATE", "Values": ["0", "4000000000"], "Condition": "BETWEEN"},
        ]
    )["Operations"]
    assert [operation["Status"] for operation in operations] == ["SUCCESS", "SUCCESS"]


def test_service_is_changed_and_deleted_when_it_has_no_instance(cloudmap: Any) -> None:
    corp = make_namespace(cloudmap)
    service = make_service(cloudmap, corp, records=[A, AAAA])
    register(cloudmap, service, "one", AWS_INSTANCE_IPV6="fd00::1")
    cloudmap.update_service(
        Id=service["Id"],
        Service={"Description": "new", "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 77}]}},
    )
    shown = cloudmap.get_service(Id=service["Arn"])["Service"]
    used = refusal(cloudmap.delete_service, Id=service["Id"])
    of_services = refusal(cloudmap.delete_namespace, Id=corp)
    cloudmap.deregister_instance(ServiceId=service["Id"], InstanceId="one")
    cloudmap.delete_service(Id=service["Id"])
    cloudmap.delete_namespace(Id=corp)

    assert service["Type"] == "DNS_HTTP"
    assert service["DnsConfig"]["RoutingPolicy"] == "MULTIVALUE"
    assert (shown["Description"], shown["InstanceCount"]) == ("new", 1)
    assert shown["DnsConfig"]["DnsRecords"] == [{"Type": "A", "TTL": 77}]
    assert shown["HealthCheckCustomConfig"] == {"FailureThreshold": 1}
    assert (used[0], of_services[0]) == ("ResourceInUse", "ResourceInUse")
    assert cloudmap.list_services()["Services"] == []


def test_instances_are_found_by_health_and_attributes(cloudmap: Any) -> None:
    service = make_service(cloudmap, make_namespace(cloudmap))
    register(cloudmap, service, "one", color="red")
    register(cloudmap, service, "two", color="blue", AWS_INIT_HEALTH_STATUS="UNHEALTHY")

    assert discover(cloudmap) == ["one"]
    assert discover(cloudmap, HealthStatus="UNHEALTHY") == ["two"]
    assert discover(cloudmap, HealthStatus="ALL") == ["one", "two"]
    assert discover(cloudmap, HealthStatus="ALL", MaxResults=1) == ["one"]
    assert discover(cloudmap, HealthStatus="ALL", QueryParameters={"color": "blue"}) == ["two"]
    assert discover(cloudmap, OptionalParameters={"color": "blue"}) == ["one"]
    of_service = {"ServiceId": service["Id"]}
    cloudmap.update_instance_custom_health_status(
        **of_service, InstanceId="one", Status="UNHEALTHY"
    )
    assert discover(cloudmap) == []
    assert discover(cloudmap, HealthStatus="HEALTHY_OR_ELSE_ALL") == ["one", "two"]
    health = cloudmap.get_instances_health_status(**of_service)["Status"]
    assert health == {"one": "UNHEALTHY", "two": "UNHEALTHY"}
    register(cloudmap, service, "one", color="green")
    shown = cloudmap.get_instance(**of_service, InstanceId="one")["Instance"]
    assert shown["Attributes"] == {"AWS_INSTANCE_IPV4": "10.1.0.1", "color": "green"}
    listed = cloudmap.get_paginator("list_instances").paginate(
        **of_service, PaginationConfig={"PageSize": 1}
    )
    assert [i["Id"] for page in listed for i in page["Instances"]] == ["one", "two"]


def test_tags_are_added_and_taken_away(cloudmap: Any) -> None:
    arn = make_service(cloudmap, make_namespace(cloudmap))["Arn"]
    cloudmap.tag_resource(ResourceARN=arn, Tags=[{"Key": "a", "Value": ""}])
    cloudmap.tag_resource(
        ResourceARN=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    )
    cloudmap.untag_resource(ResourceARN=arn, TagKeys=["b", "c"])
    many = [{"Key": str(number), "Value": ""} for number in range(50)]

    assert cloudmap.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    with pytest.raises(cloudmap.exceptions.TooManyTagsException) as refused:
        cloudmap.tag_resource(ResourceARN=arn, Tags=many)
    assert refused.value.response["ResourceName"] == arn
    nothing = refusal(cloudmap.list_tags_for_resource, ResourceARN=f"{arn}x")
    assert nothing[0] == "ResourceNotFoundException"


def test_policy_speaks_of_namespaces_and_services(
    start_control_plane: StartControlPlane,
) -> None:
    before = start_control_plane()
    cloudmap = make_cloud_map(before)
    corp = make_namespace(cloudmap)
    web, db = (make_service(cloudmap, corp, name) for name in ("web", "db"))
    actions = ["servicediscovery:RegisterInstance", "servicediscovery:CreateService"]
    add_principal(
        before.state_dir,
        [
            {
                "Effect": "Allow",
                "Action": actions,
                "Resource": [web["Arn"], f"{ARN}namespace/{corp}"],
            }
        ],
    )
    again = start_control_plane()
    key, secret = again.keys["ci"]
    ci = make_cloud_map(again, aws_access_key_id=key, aws_secret_access_key=secret)
    register(ci, web, "one")
    make_service(ci, corp, "cache")

    attributes = {"AWS_INSTANCE_IPV4": "10.0.0.1"}
    kind, text = refusal(
        ci.register_instance, ServiceId=db["Id"], InstanceId="one", Attributes=attributes
    )
    assert kind == "AccessDeniedException"
    assert f"servicediscovery:RegisterInstance on resource: {db['Arn']}" in text
    assert refusal(ci.list_namespaces)[0] == "AccessDeniedException"


def test_vpc_with_a_namespace_stays(control_plane: ControlPlane, cloudmap: Any) -> None:
    ec2 = make_ec2(control_plane)
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    id_ = make_namespace(cloudmap, vpc=vpc)
    kept = refusal(ec2.delete_vpc, VpcId=vpc)
    cloudmap.delete_namespace(Id=id_)
    ec2.delete_vpc(VpcId=vpc)

    assert kept[0] == "DependencyViolation"
