"""Queries of EC2 are read, and answers written, as botocore writes and reads them."""

from typing import Any

import pytest
from botocore.parsers import EC2QueryParser
from botocore.serialize import EC2Serializer

from fargate_agent.controlplane.ec2.filters import INTERFACE_FILTERS, Filters
from fargate_agent.controlplane.ec2.query import parse_action, parse_form, parse_request
from fargate_agent.controlplane.ec2.shapes import OPERATIONS, service_model
from fargate_agent.controlplane.ec2.xml import render_answer, render_error
from fargate_agent.controlplane.errors import ApiError

VERSION = "Version=2016-11-15"
ENI: dict[str, Any] = {
    "NetworkInterfaceId": "eni-1",
    "PrivateIpAddress": "10.0.0.4",
    "Description": "a*b",
    "Groups": [{"GroupId": "sg-a"}, {"GroupId": "sg-b"}],
    "PrivateIpAddresses": [{"Primary": True}],
    "TagSet": [],
}


def parse(query: str, operation: str = "DescribeNetworkInterfaces") -> Any:
    shape = service_model().operation_model(operation).input_shape
    return parse_request(parse_form(query.encode()), shape)


def test_query_becomes_the_request_that_the_model_describes() -> None:
    request = parse(
        "Action=X&Version=Y&NetworkInterfaceId.2=eni-b&NetworkInterfaceId.1=eni-a&MaxResults=7"
        "&DryRun=true&Filter.1.Name=subnet-id&Filter.1.Value.1=a%26b&Filter.1.Value.2="
    )

    assert request == {
        "NetworkInterfaceIds": ["eni-a", "eni-b"],
        "MaxResults": 7,
        "DryRun": True,
        "Filters": [{"Name": "subnet-id", "Values": ["a&b", ""]}],
    }


@pytest.mark.parametrize(
    ("query", "code"),
    [
        pytest.param("Nonsense=1", "UnknownParameter", id="unknown"),
        pytest.param("Filter.1.Nonsense=1", "UnknownParameter", id="unknown inside"),
        pytest.param("Filter.x.Name=a", "UnknownParameter", id="no number"),
        pytest.param("Filter=a", "UnknownParameter", id="list as text"),
        pytest.param("MaxResults.1=5", "UnknownParameter", id="number as list"),
        pytest.param("DryRun=true&DryRun.1=5", "UnknownParameter", id="both"),
        pytest.param("MaxResults=many", "InvalidParameterValue", id="no integer"),
        pytest.param(f"MaxResults={'9' * 5000}", "InvalidParameterValue", id="long integer"),
        pytest.param("DryRun=perhaps", "InvalidParameterValue", id="no boolean"),
        pytest.param("DryRun=true&DryRun=false", "MalformedQueryString", id="twice"),
        pytest.param("MaxResults=%ff", "MalformedQueryString", id="not UTF-8"),
        pytest.param("&".join(f"a{i}=" for i in range(2001)), "MalformedQueryString", id="many"),
    ],
)
def test_query_is_refused(query: str, code: str) -> None:
    with pytest.raises(ApiError) as refusal:
        parse(query)

    assert refusal.value.kind == code


@pytest.mark.parametrize(
    ("query", "code"),
    [
        pytest.param(VERSION, "MissingParameter", id="no action"),
        pytest.param("Action=DescribeVpcs", "MissingParameter", id="no version"),
        pytest.param("Action=DescribeVpcs&Version=2010-01-01", "NoSuchVersion", id="old version"),
        pytest.param("\xe4", "MalformedQueryString", id="not ASCII"),
    ],
)
def test_query_without_an_action_is_refused(query: str, code: str) -> None:
    with pytest.raises(ApiError) as refusal:
        parse_action(query.encode())

    assert refusal.value.kind == code


def example(shape: Any) -> Any:
    """Make a value with every member, and two items in each list."""
    match shape.type_name:
        case "structure":
            return {name: example(member) for name, member in shape.members.items()}
        case "list":
            return [example(shape.member)] * 2
        case "integer" | "long":
            return 5
        case "boolean":
            return True
        case _:
            return "a b"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_request_with_every_member_is_read_as_botocore_writes_it(operation: str) -> None:
    model = service_model().operation_model(operation)
    request = example(model.input_shape)

    sent = EC2Serializer().serialize_to_request(request, model)["body"]
    parsed = parse_request({name: str(value) for name, value in sent.items()}, model.input_shape)

    assert parsed == request


def test_answer_is_read_by_botocore_as_it_was_meant() -> None:
    shape = service_model().operation_model("DescribeNetworkInterfaces").output_shape
    eni = {
        **ENI,
        "Description": "<&> \x00 ü",
        "RequesterManaged": True,
        "Attachment": {"AttachTime": 1_700_000_000.5, "DeviceIndex": 1},
    }

    xml = render_answer("DescribeNetworkInterfaces", {"NetworkInterfaces": [eni]}, shape, "r-1")

    read = EC2QueryParser().parse({"body": xml, "headers": {}, "status_code": 200}, shape)
    (found,) = read["NetworkInterfaces"]
    assert found.pop("Attachment")["AttachTime"].timestamp() == 1_700_000_000
    assert found == {name: value for name, value in eni.items() if name != "Attachment"} | {
        "Description": "<&> ? ü"
    }
    assert read["ResponseMetadata"]["RequestId"] == "r-1"


def test_error_is_read_by_botocore_as_it_was_meant() -> None:
    shape = service_model().operation_model("DescribeVpcs").output_shape

    xml = render_error("InvalidAction", "<no>", "r-1")

    read = EC2QueryParser().parse({"body": xml, "headers": {}, "status_code": 400}, shape)
    assert read["Error"] == {"Code": "InvalidAction", "Message": "<no>"}
    assert read["ResponseMetadata"]["RequestId"] == "r-1"


@pytest.mark.parametrize(
    ("name", "values", "passes"),
    [
        pytest.param("network-interface-id", ["eni-2", "eni-1"], True, id="one of two"),
        pytest.param("network-interface-id", ["eni"], False, id="only a part"),
        pytest.param("network-interface-id", [], False, id="no values"),
        pytest.param("private-ip-address", ["10.0.?.*"], True, id="wildcards"),
        pytest.param("private-ip-address", ["10.0.[0].4"], False, id="brackets"),
        pytest.param("description", [r"a\*b"], True, id="a star itself"),
        pytest.param("description", [r"a\?b"], False, id="a question mark itself"),
        pytest.param("group-id", ["sg-b"], True, id="item of a list"),
        pytest.param("addresses.primary", ["true"], True, id="boolean"),
        pytest.param("association.public-ip", ["*"], False, id="what it has not"),
        pytest.param("tag:Name", ["*"], False, id="tag"),
        pytest.param("tag-key", ["*"], False, id="tag key"),
    ],
)
def test_filter_passes(name: str, values: list[str], passes: bool) -> None:
    filters = Filters([{"Name": name, "Values": values}], INTERFACE_FILTERS)

    assert filters.pass_on(ENI) is passes


def test_all_filters_must_hold() -> None:
    given = [
        {"Name": "network-interface-id", "Values": ["eni-1"]},
        {"Name": "group-id", "Values": ["sg-z"]},
    ]

    assert not Filters(given, INTERFACE_FILTERS).pass_on(ENI)


def test_unknown_filter_is_refused() -> None:
    with pytest.raises(ApiError, match="The filter 'x' is invalid") as refusal:
        Filters([{"Name": "x", "Values": ["y"]}], INTERFACE_FILTERS)

    assert refusal.value.kind == "InvalidParameterValue"


def test_many_wildcards_are_matched_at_once() -> None:
    filters = Filters([{"Name": "description", "Values": ["*a" * 60 + "b"]}], INTERFACE_FILTERS)

    assert not filters.pass_on({"Description": "a" * 255})
