"""VPCs and what is in them, made by EC2's calls: a real client, a real control plane."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, make_ec2
from tests.fixtures.ecs import FARGATE


@pytest.fixture
def plane(start_control_plane: StartControlPlane) -> ControlPlane:
    plane = start_control_plane()
    plane.client().register_task_definition(**FARGATE)
    return plane


@pytest.fixture
def ec2(plane: ControlPlane) -> Any:
    return make_ec2(plane)


def refused(call: Callable[..., Any], **request: Any) -> tuple[str, str]:
    """Return code and text of the error that a call ends with."""
    with pytest.raises(ClientError) as refusal:
        call(**request)
    error: Any = refusal.value.response["Error"]
    return error["Code"], error["Message"]


def make_vpc(ec2: Any, cidr: str = "10.50.0.0/16", **more: Any) -> str:
    id_: str = ec2.create_vpc(CidrBlock=cidr, **more)["Vpc"]["VpcId"]
    return id_


def make_subnet(ec2: Any, vpc: str, cidr: str, **more: Any) -> str:
    id_: str = ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, **more)["Subnet"]["SubnetId"]
    return id_


def of_vpc(vpc: str) -> list[dict[str, Any]]:
    return [{"Name": "vpc-id", "Values": [vpc]}]


def test_new_vpc_has_what_terraform_looks_for(ec2: Any) -> None:
    tags = [{"Key": "Name", "Value": "mine"}]
    vpc = make_vpc(
        ec2,
        AmazonProvidedIpv6CidrBlock=True,
        TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}],
    )
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})

    (shown,) = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
    assert (shown["CidrBlock"], shown["IsDefault"], shown["Tags"]) == ("10.50.0.0/16", False, tags)
    assert shown["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"].startswith("fd")
    for attribute, value in (("enableDnsHostnames", True), ("enableDnsSupport", True)):
        told = ec2.describe_vpc_attribute(VpcId=vpc, Attribute=attribute)
        assert told[attribute[:1].upper() + attribute[1:]] == {"Value": value}
    (group,) = ec2.describe_security_groups(Filters=of_vpc(vpc))["SecurityGroups"]
    assert (group["GroupName"], group["Description"]) == ("default", "default VPC security group")
    assert group["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"] == group["GroupId"]
    (table,) = ec2.describe_route_tables(
        Filters=[*of_vpc(vpc), {"Name": "association.main", "Values": ["true"]}]
    )["RouteTables"]
    assert table["Routes"][0]["GatewayId"] == "local"
    (acl,) = ec2.describe_network_acls(
        Filters=[*of_vpc(vpc), {"Name": "default", "Values": ["true"]}]
    )["NetworkAcls"]
    assert acl["IsDefault"]
    assert refused(ec2.delete_security_group, GroupId=group["GroupId"])[0] == "CannotDelete"

    ec2.delete_vpc(VpcId=vpc)

    assert refused(ec2.describe_vpcs, VpcIds=[vpc])[0] == "InvalidVpcID.NotFound"
    assert ec2.describe_security_groups(Filters=of_vpc(vpc))["SecurityGroups"] == []
    assert ec2.describe_route_tables(Filters=of_vpc(vpc))["RouteTables"] == []


@pytest.mark.parametrize(
    ("cidr", "code", "text"),
    [
        pytest.param("10.0.0.0/8", "InvalidVpc.Range", "is invalid", id="too large"),
        pytest.param("10.9.0.0/29", "InvalidVpc.Range", "is invalid", id="too small"),
        pytest.param("10.0.128.0/24", "InvalidVpc.Range", "of vpc-default", id="overlap"),
        pytest.param("169.254.0.0/16", "InvalidVpc.Range", "is invalid", id="link-local"),
        pytest.param("x", "InvalidParameterValue", "not a valid CIDR", id="no range"),
    ],
)
def test_vpc_that_can_not_be_is_refused(ec2: Any, cidr: str, code: str, text: str) -> None:
    said = refused(ec2.create_vpc, CidrBlock=cidr)

    assert said[0] == code
    assert text in said[1]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param({"CidrBlock": "10.51.0.0/24"}, "InvalidSubnet.Range", id="outside"),
        pytest.param({"CidrBlock": "10.50.0.0/29"}, "InvalidSubnet.Range", id="too small"),
        pytest.param({"CidrBlock": "10.50.1.128/25"}, "InvalidSubnet.Conflict", id="conflict"),
        pytest.param({"Ipv6CidrBlock": "fd00::/64"}, "InvalidSubnet.Range", id="IPv6"),
        pytest.param({"VpcId": "vpc-1"}, "InvalidVpcID.NotFound", id="VPC"),
        pytest.param({"AvailabilityZone": "mars-1a"}, "InvalidParameterValue", id="zone"),
        pytest.param({"DryRun": True}, "DryRunOperation", id="dry run"),
    ],
)
def test_subnet_that_can_not_be_is_refused(ec2: Any, request_: dict[str, Any], code: str) -> None:
    vpc = make_vpc(ec2)
    make_subnet(ec2, vpc, "10.50.1.0/24")
    asked = {"VpcId": vpc, "CidrBlock": "10.50.2.0/24", **request_}

    assert refused(ec2.create_subnet, **asked)[0] == code
    assert len(ec2.describe_subnets(Filters=of_vpc(vpc))["Subnets"]) == 1


async def test_task_runs_in_a_subnet_that_was_made_and_keeps_it(
    plane: ControlPlane, ec2: Any
) -> None:
    vpc = await asyncio.to_thread(make_vpc, ec2, Ipv6CidrBlock="fd00:50::/56")
    subnet = await asyncio.to_thread(
        make_subnet,
        ec2,
        vpc,
        "10.50.1.0/24",
        Ipv6CidrBlock="fd00:50:0:1::/64",
        AvailabilityZone="us-east-1b",
    )
    network = {"awsvpcConfiguration": {"subnets": [subnet]}}
    async with SimulatedAgent(plane) as agent:
        made = await asyncio.to_thread(
            lambda: plane.client().run_task(
                taskDefinition="web", launchType="FARGATE", networkConfiguration=network
            )
        )
        task = await agent.take()
        busy = await asyncio.to_thread(refused, ec2.delete_subnet, SubnetId=subnet)
        await agent.bring_down(task, exit_code=0)
        await asyncio.to_thread(ec2.delete_subnet, SubnetId=subnet)
        after = await asyncio.to_thread(plane.client().describe_tasks, tasks=[task["arn"]])

    (eni,) = task["elasticNetworkInterfaces"]
    assert eni["ipv4Addresses"][0]["privateAddress"] == "10.50.1.4"
    assert eni["ipv6Addresses"][0]["address"] == "fd00:50:0:1::4"
    assert eni["subnetGatewayIpv4Address"] == "10.50.1.1/24"
    assert eni["interfaceAssociationProtocol"] == "veth"
    assert eni["vpcCidrBlocks"] == ["10.50.0.0/16", "fd00:50::/56"]
    assert (task["vpcId"], task["zone"]) == (vpc, "us-east-1b")
    assert [group["id"] for group in task["securityGroups"]] == eni["securityGroups"]
    assert eni["securityGroups"] != ["sg-default"]
    assert busy[0] == "DependencyViolation"
    assert made["tasks"][0]["availabilityZone"] == "us-east-1b"
    assert after["tasks"][0]["availabilityZone"] == "us-east-1b"


async def test_groups_and_subnets_of_a_task_are_of_one_vpc(plane: ControlPlane, ec2: Any) -> None:
    vpc = await asyncio.to_thread(make_vpc, ec2)
    subnet = await asyncio.to_thread(make_subnet, ec2, vpc, "10.50.1.0/24")
    client = plane.client()

    def run(subnets: list[str], groups: list[str]) -> tuple[str, str]:
        network = {"subnets": subnets, "securityGroups": groups}
        return refused(
            client.run_task,
            taskDefinition="web",
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": network},
        )

    async with SimulatedAgent(plane):
        other_group = await asyncio.to_thread(run, [subnet], ["sg-default"])
        two_vpcs = await asyncio.to_thread(run, [subnet, "subnet-default"], [])

    assert "different VPCs" in other_group[1]
    assert "same VPC" in two_vpcs[1]


def test_what_the_settings_say_is_not_deleted(ec2: Any) -> None:
    assert refused(ec2.delete_vpc, VpcId="vpc-default")[0] == "OperationNotPermitted"
    assert refused(ec2.delete_subnet, SubnetId="subnet-default")[0] == "OperationNotPermitted"


def test_subnet_attributes_are_kept(ec2: Any) -> None:
    subnet = make_subnet(ec2, "vpc-default", "10.0.32.0/24")
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    ec2.modify_subnet_attribute(SubnetId=subnet, PrivateDnsHostnameTypeOnLaunch="resource-name")

    (shown,) = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    assert shown["MapPublicIpOnLaunch"]
    assert shown["PrivateDnsNameOptionsOnLaunch"]["HostnameType"] == "resource-name"


def test_rule_by_prefix_list_lasts_as_long_as_the_list(ec2: Any) -> None:
    token = {"ClientToken": "t-1"}
    asked = {
        "PrefixListName": "offices",
        "AddressFamily": "IPv4",
        "MaxEntries": 3,
        "Entries": [{"Cidr": "10.1.0.0/16", "Description": "one"}],
    }
    made = ec2.create_managed_prefix_list(**asked, **token)["PrefixList"]
    again = ec2.create_managed_prefix_list(**asked, **token)["PrefixList"]
    id_ = made["PrefixListId"]
    group = ec2.create_security_group(GroupName="db", Description="d")["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[{"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": id_}]}],
    )
    changed = ec2.modify_managed_prefix_list(
        PrefixListId=id_,
        CurrentVersion=1,
        AddEntries=[{"Cidr": "10.2.0.0/16"}],
        RemoveEntries=[{"Cidr": "10.1.0.0/16"}],
    )["PrefixList"]
    entries = ec2.get_managed_prefix_list_entries(PrefixListId=id_)["Entries"]

    assert again["PrefixListId"] == id_
    assert (changed["Version"], [entry["Cidr"] for entry in entries]) == (2, ["10.2.0.0/16"])
    stale = refused(ec2.modify_managed_prefix_list, PrefixListId=id_, CurrentVersion=1)
    assert stale[0] == "PrefixListVersionMismatch"
    assert refused(ec2.delete_managed_prefix_list, PrefixListId=id_)[0] == "DependencyViolation"
    ec2.delete_security_group(GroupId=group)
    ec2.delete_managed_prefix_list(PrefixListId=id_)
    assert ec2.describe_prefix_lists()["PrefixLists"] == []


async def test_entries_of_a_prefix_list_are_told_as_ranges(plane: ControlPlane, ec2: Any) -> None:
    def prepare() -> None:
        list_id = ec2.create_managed_prefix_list(
            PrefixListName="p",
            AddressFamily="IPv4",
            MaxEntries=2,
            Entries=[{"Cidr": "10.1.0.0/16"}, {"Cidr": "10.2.0.0/16"}],
        )["PrefixList"]["PrefixListId"]
        ec2.authorize_security_group_ingress(
            GroupId="sg-default",
            IpPermissions=[
                {
                    "IpProtocol": "17",
                    "FromPort": 53,
                    "ToPort": 53,
                    "PrefixListIds": [{"PrefixListId": list_id}],
                }
            ],
        )

    await asyncio.to_thread(prepare)
    network = {"awsvpcConfiguration": {"subnets": ["subnet-default"]}}
    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(
            lambda: plane.client().run_task(
                taskDefinition="web", launchType="FARGATE", networkConfiguration=network
            )
        )
        task = await agent.take()

    (group,) = task["securityGroups"]
    assert group["ingress"][1]["cidrs"] == ["10.1.0.0/16", "10.2.0.0/16"]


class Module:
    """What a VPC module makes: a VPC with a subnet that leads out by a NAT gateway."""

    def __init__(self, ec2: Any) -> None:
        self._ec2 = ec2
        self.vpc = make_vpc(ec2)
        self.subnet = make_subnet(ec2, self.vpc, "10.50.1.0/24")
        made = ec2.create_internet_gateway()["InternetGateway"]
        self.gateway: str = made["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)
        self.address: dict[str, Any] = ec2.allocate_address(Domain="vpc")
        allocation = self.address["AllocationId"]
        made = ec2.create_nat_gateway(SubnetId=self.subnet, AllocationId=allocation)["NatGateway"]
        self.nat: str = made["NatGatewayId"]
        self.table: str = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        self.out = {"RouteTableId": self.table, "DestinationCidrBlock": "0.0.0.0/0"}
        ec2.create_route(**self.out, NatGatewayId=self.nat)
        made = ec2.associate_route_table(RouteTableId=self.table, SubnetId=self.subnet)
        self.association: str = made["AssociationId"]

    def take_down(self) -> None:
        self._ec2.disassociate_route_table(AssociationId=self.association)
        self._ec2.delete_route(**self.out)
        self._ec2.delete_route_table(RouteTableId=self.table)
        self._ec2.delete_nat_gateway(NatGatewayId=self.nat)
        self._ec2.release_address(AllocationId=self.address["AllocationId"])
        self._ec2.detach_internet_gateway(InternetGatewayId=self.gateway, VpcId=self.vpc)
        self._ec2.delete_internet_gateway(InternetGatewayId=self.gateway)
        self._ec2.delete_subnet(SubnetId=self.subnet)
        self._ec2.delete_vpc(VpcId=self.vpc)


def test_gateways_and_routes_of_a_vpc_module_are_shown(ec2: Any) -> None:
    module = Module(ec2)
    vpc = of_vpc(module.vpc)

    by_subnet = [{"Name": "association.subnet-id", "Values": [module.subnet]}]
    (table,) = ec2.describe_route_tables(Filters=by_subnet)["RouteTables"]
    (nat,) = ec2.describe_nat_gateways(Filter=vpc)["NatGateways"]
    by_vpc = [{"Name": "attachment.vpc-id", "Values": [module.vpc]}]
    (gateway,) = ec2.describe_internet_gateways(Filters=by_vpc)["InternetGateways"]
    (address,) = ec2.describe_addresses(AllocationIds=[module.address["AllocationId"]])["Addresses"]

    assert table["RouteTableId"] == module.table
    assert table["Routes"][1]["NatGatewayId"] == module.nat
    assert table["Associations"][0]["RouteTableAssociationId"] == module.association
    assert (nat["State"], nat["SubnetId"]) == ("available", module.subnet)
    assert nat["NatGatewayAddresses"][0]["PublicIp"] == module.address["PublicIp"]
    assert gateway["Attachments"] == [{"State": "available", "VpcId": module.vpc}]
    assert "AssociationId" in address
    told = ec2.describe_addresses_attribute(AllocationIds=[address["AllocationId"]])
    assert [one["PublicIp"] for one in told["Addresses"]] == [address["PublicIp"]]


def test_what_something_else_needs_is_not_deleted(ec2: Any) -> None:
    module = Module(ec2)

    codes = [
        refused(ec2.delete_vpc, VpcId=module.vpc)[0],
        refused(ec2.delete_subnet, SubnetId=module.subnet)[0],
        refused(ec2.delete_route_table, RouteTableId=module.table)[0],
        refused(ec2.delete_internet_gateway, InternetGatewayId=module.gateway)[0],
    ]

    assert codes == ["DependencyViolation"] * 4


def test_vpc_module_is_taken_down(ec2: Any) -> None:
    Module(ec2).take_down()

    assert ec2.describe_nat_gateways()["NatGateways"] == []
    assert ec2.describe_addresses()["Addresses"] == []
    assert [one["VpcId"] for one in ec2.describe_vpcs()["Vpcs"]] == ["vpc-default"]


def test_routes_and_main_table_are_replaced(ec2: Any) -> None:
    module = Module(ec2)
    twice = refused(ec2.create_route, **module.out, GatewayId=module.gateway)
    ec2.replace_route(**module.out, GatewayId=module.gateway)
    by_main = [*of_vpc(module.vpc), {"Name": "association.main", "Values": ["true"]}]
    (main,) = ec2.describe_route_tables(Filters=by_main)["RouteTables"]
    ec2.replace_route_table_association(
        AssociationId=main["Associations"][0]["RouteTableAssociationId"], RouteTableId=module.table
    )

    (replaced,) = ec2.describe_route_tables(Filters=by_main)["RouteTables"]
    assert twice == (
        "RouteAlreadyExists",
        "The route identified by 0.0.0.0/0 already exists.",
    )
    assert replaced["RouteTableId"] == module.table
    assert replaced["Routes"][1]["GatewayId"] == module.gateway
    absent = refused(
        ec2.delete_route, RouteTableId=module.table, DestinationCidrBlock="10.9.0.0/16"
    )
    assert absent[0] == "InvalidRoute.NotFound"


def test_zones_are_described(ec2: Any) -> None:
    zones = ec2.describe_availability_zones(Filters=[{"Name": "state", "Values": ["available"]}])

    names = [(zone["ZoneName"], zone["ZoneId"]) for zone in zones["AvailabilityZones"]]
    assert names == [
        ("us-east-1a", "use1-az1"),
        ("us-east-1b", "use1-az2"),
        ("us-east-1c", "use1-az3"),
    ]
