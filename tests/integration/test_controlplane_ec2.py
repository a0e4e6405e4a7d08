"""Where a task runs, as tools ask EC2 for it: real clients, real control plane."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, make_ec2
from tests.fixtures.ecs import FARGATE, run
from tests.fixtures.requests import sign

SETTINGS: dict[str, Any] = {
    "vpc_ipv6_cidr": "fd00:213::/56",
    "subnets": [
        {
            "id": "subnet-lan",
            "cidr": "192.168.57.0/24",
            "kind": "macvlan",
            "parent": "eth1",
            "availability_zone": "us-east-1b",
        }
    ],
    "security_groups": [
        {
            "id": "sg-web",
            "name": "web",
            "description": "HTTP from anywhere",
            "ingress": [
                {
                    "protocol": "tcp",
                    "from_port": 80,
                    "to_port": 81,
                    "cidrs": ["0.0.0.0/0", "::/0"],
                    "groups": ["sg-default"],
                }
            ],
        }
    ],
}


@pytest.fixture
def plane(start_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """A control plane with more in its VPC than by default; it has a task definition `web`."""
    plane = start_control_plane(**SETTINGS)
    plane.client().register_task_definition(**FARGATE)
    return plane


@pytest.fixture
def ec2(plane: ControlPlane) -> Any:
    return make_ec2(plane)


def code_of(refusal: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    answer: Any = refusal.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


async def test_eni_of_a_task_is_described(plane: ControlPlane, ec2: Any) -> None:
    async with SimulatedAgent(plane) as agent:
        made = (await asyncio.to_thread(run, plane.client()))["tasks"][0]
        task = await agent.take()
        await agent.bring_up(task)
        told = task["elasticNetworkInterfaces"][0]

        answer = await asyncio.to_thread(
            ec2.describe_network_interfaces, NetworkInterfaceIds=[told["ec2Id"]]
        )

    (eni,) = answer["NetworkInterfaces"]
    attachment = eni.pop("Attachment")
    assert attachment.pop("AttachTime").timestamp() == int(made["createdAt"].timestamp())
    assert attachment.pop("AttachmentId").startswith("eni-attach-")
    assert attachment == {
        "DeleteOnTermination": False,
        "DeviceIndex": 1,
        "InstanceOwnerId": "000000000000",
        "NetworkCardIndex": 0,
        "Status": "attached",
    }
    assert eni == {
        "AvailabilityZone": "us-east-1a",
        "Description": told["attachmentArn"],
        "Groups": [{"GroupId": "sg-default", "GroupName": "default"}],
        "InterfaceType": "interface",
        "Ipv6Address": "fd00:213::4",
        "Ipv6Addresses": [{"Ipv6Address": "fd00:213::4"}],
        "MacAddress": told["macAddress"],
        "NetworkInterfaceId": told["ec2Id"],
        "OwnerId": "000000000000",
        "PrivateDnsName": "ip-10-0-0-4.ec2.internal",
        "PrivateIpAddress": "10.0.0.4",
        "PrivateIpAddresses": [
            {
                "Primary": True,
                "PrivateDnsName": "ip-10-0-0-4.ec2.internal",
                "PrivateIpAddress": "10.0.0.4",
            }
        ],
        "RequesterId": "000000000000",
        "RequesterManaged": True,
        "SourceDestCheck": True,
        "Status": "in-use",
        "SubnetId": "subnet-default",
        "TagSet": [],
        "VpcId": "vpc-default",
    }


async def test_eni_of_a_stopped_task_is_gone(plane: ControlPlane, ec2: Any) -> None:
    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(run, plane.client())
        task = await agent.take()
        await agent.bring_down(task, exit_code=0)
        eni = task["elasticNetworkInterfaces"][0]["ec2Id"]

        with pytest.raises(ClientError, match=f"The networkInterface ID '{eni}' does not exist"):
            await asyncio.to_thread(ec2.describe_network_interfaces, NetworkInterfaceIds=[eni])


async def test_enis_are_listed_in_pages_and_by_filter(plane: ControlPlane, ec2: Any) -> None:
    async with SimulatedAgent(plane):
        await asyncio.to_thread(run, plane.client(), count=8)

        pages = await asyncio.to_thread(
            lambda: list(
                ec2.get_paginator("describe_network_interfaces").paginate(
                    PaginationConfig={"PageSize": 5}
                )
            )
        )
        by_address = await asyncio.to_thread(
            ec2.describe_network_interfaces,
            Filters=[
                {"Name": "private-ip-address", "Values": ["10.0.0.7", "10.0.0.9"]},
                {"Name": "vpc-id", "Values": ["vpc-*"]},
            ],
        )

    ids = [eni["NetworkInterfaceId"] for page in pages for eni in page["NetworkInterfaces"]]
    assert [len(page["NetworkInterfaces"]) for page in pages] == [5, 3]
    assert len(set(ids)) == 8
    found = {eni["PrivateIpAddress"] for eni in by_address["NetworkInterfaces"]}
    assert found == {"10.0.0.7", "10.0.0.9"}


async def test_subnets_are_described_with_the_addresses_they_have_left(
    plane: ControlPlane, ec2: Any
) -> None:
    async with SimulatedAgent(plane):
        await asyncio.to_thread(run, plane.client(), count=3)

        subnets = (await asyncio.to_thread(ec2.describe_subnets))["Subnets"]

    seen = [
        (s["SubnetId"], s["CidrBlock"], s["AvailabilityZone"], s["AvailableIpAddressCount"])
        for s in subnets
    ]
    assert seen == [
        ("subnet-default", "10.0.0.0/20", "us-east-1a", 4096 - 5 - 3),
        ("subnet-lan", "192.168.57.0/24", "us-east-1b", 256 - 5),
    ]
    assert subnets[0]["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"] == "fd00:213::/64"
    assert subnets[1]["Ipv6CidrBlockAssociationSet"] == []
    assert subnets[0]["SubnetArn"] == "arn:aws:ec2:us-east-1:000000000000:subnet/subnet-default"


def test_vpc_has_the_ranges_of_all_its_subnets(ec2: Any) -> None:
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]

    blocks = [block["CidrBlock"] for block in vpc["CidrBlockAssociationSet"]]
    assert (vpc["VpcId"], vpc["IsDefault"], vpc["State"]) == ("vpc-default", True, "available")
    assert blocks == ["10.0.0.0/16", "192.168.57.0/24"]
    assert [block["Ipv6CidrBlock"] for block in vpc["Ipv6CidrBlockAssociationSet"]] == [
        "fd00:213::/56"
    ]


def test_security_group_is_described_with_its_rules(ec2: Any) -> None:
    (group,) = ec2.describe_security_groups(GroupNames=["web"])["SecurityGroups"]

    assert group == {
        "Description": "HTTP from anywhere",
        "GroupId": "sg-web",
        "GroupName": "web",
        "IpPermissions": [
            {
                "FromPort": 80,
                "IpProtocol": "tcp",
                "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
                "PrefixListIds": [],
                "ToPort": 81,
                "UserIdGroupPairs": [{"GroupId": "sg-default", "UserId": "000000000000"}],
            }
        ],
        "IpPermissionsEgress": [
            {
                "IpProtocol": "-1",
                "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
                "PrefixListIds": [],
                "UserIdGroupPairs": [],
            }
        ],
        "OwnerId": "000000000000",
        "SecurityGroupArn": "arn:aws:ec2:us-east-1:000000000000:security-group/sg-web",
        "Tags": [],
        "VpcId": "vpc-default",
    }


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("operation", "request_", "code", "status"),
    [
        pytest.param(
            "describe_network_interfaces",
            {"NetworkInterfaceIds": ["eni-1"]},
            "InvalidNetworkInterfaceID.NotFound",
            400,
            id="ENI",
        ),
        pytest.param(
            "describe_subnets",
            {"SubnetIds": ["subnet-lan", "subnet-x"]},
            "InvalidSubnetID.NotFound",
            400,
            id="subnet",
        ),
        pytest.param(
            "describe_security_groups",
            {"GroupIds": ["sg-x"]},
            "InvalidGroup.NotFound",
            400,
            id="security group",
        ),
        pytest.param(
            "describe_vpcs", {"VpcIds": ["vpc-x"]}, "InvalidVpcID.NotFound", 400, id="VPC"
        ),
        pytest.param(
            "describe_vpcs",
            {"Filters": [{"Name": "x", "Values": ["y"]}]},
            "InvalidParameterValue",
            400,
            id="filter",
        ),
        pytest.param(
            "describe_subnets", {"MaxResults": 1001}, "InvalidParameterValue", 400, id="page"
        ),
        pytest.param("describe_subnets", {"NextToken": "!"}, "InvalidNextToken", 400, id="token"),
        pytest.param(
            "describe_subnets",
            {"MaxResults": 5, "SubnetIds": ["subnet-lan"]},
            "InvalidParameterCombination",
            400,
            id="page of ids",
        ),
        pytest.param("describe_vpcs", {"DryRun": True}, "DryRunOperation", 412, id="dry run"),
        pytest.param("describe_instances", {}, "InvalidAction", 400, id="another action"),
    ],
)
def test_request_is_refused_as_ec2_does(
    ec2: Any, operation: str, request_: dict[str, Any], code: str, status: int
) -> None:
    with pytest.raises(ClientError) as refusal:
        getattr(ec2, operation)(**request_)

    assert code_of(refusal) == (code, status)


@pytest.mark.one_store
def test_wrong_secret_is_refused_as_ec2_does(plane: ControlPlane) -> None:
    with pytest.raises(ClientError) as refusal:
        make_ec2(plane, aws_secret_access_key="x" * 40).describe_vpcs()

    assert code_of(refusal) == ("AuthFailure", 401)


def test_agent_may_not_look_at_the_vpc_nor_change_it(plane: ControlPlane) -> None:
    access_key_id, secret = plane.keys["agent"]
    agent = make_ec2(plane, aws_access_key_id=access_key_id, aws_secret_access_key=secret)

    with pytest.raises(ClientError) as refusal:
        agent.describe_vpcs()
    with pytest.raises(ClientError) as change:
        agent.create_security_group(GroupName="db", Description="d")

    assert code_of(refusal) == code_of(change) == ("UnauthorizedOperation", 403)


@pytest.mark.one_store
async def test_signature_for_ecs_is_none_for_ec2(plane: ControlPlane) -> None:
    body = b"Action=DescribeVpcs&Version=2016-11-15"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    signed = sign("POST", f"{plane.url}/", plane.keys["admin"], body=body, headers=headers)

    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{plane.url}/", data=body, headers=signed) as answer,
    ):
        assert answer.status == 401
        assert answer.content_type == "text/xml"
        assert "<Code>AuthFailure</Code>" in await answer.text()


@pytest.mark.one_store
async def test_aws_cli_describes_an_eni(plane: ControlPlane) -> None:
    access_key_id, secret = plane.keys["admin"]
    async with SimulatedAgent(plane):
        await asyncio.to_thread(run, plane.client())

        told = await asyncio.to_thread(
            subprocess.run,
            [
                *(sys.executable, "-m", "awscli", "ec2", "describe-network-interfaces"),
                *("--query", "NetworkInterfaces[].PrivateIpAddress", "--output", "text"),
            ],
            env={
                **os.environ,
                "AWS_ENDPOINT_URL": plane.url,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": access_key_id,
                "AWS_SECRET_ACCESS_KEY": secret,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    assert (told.stdout, told.stderr) == ("10.0.0.4\n", "")
