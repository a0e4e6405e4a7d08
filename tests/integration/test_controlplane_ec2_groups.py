"""Security groups that are made and changed by EC2's calls: a real client, a real control plane."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, make_ec2
from tests.fixtures.ecs import FARGATE

HTTP = {
    "IpProtocol": "tcp",
    "FromPort": 80,
    "ToPort": 80,
    "IpRanges": [{"CidrIp": "10.1.2.3/8", "Description": "the office"}],
}
WEB = {"id": "sg-web", "name": "web", "ingress": [{"protocol": "icmp", "groups": ["sg-default"]}]}
IPV6 = {"vpc_ipv6_cidr": "fd00:213::/56"}


@pytest.fixture
def plane(start_control_plane: StartControlPlane) -> ControlPlane:
    plane = start_control_plane(security_groups=[WEB], **IPV6)
    plane.client().register_task_definition(**FARGATE)
    return plane


@pytest.fixture
def ec2(plane: ControlPlane) -> Any:
    return make_ec2(plane)


def make_group(ec2: Any, name: str = "db", **more: Any) -> str:
    made = ec2.create_security_group(GroupName=name, Description=f"the {name}", **more)
    id_: str = made["GroupId"]
    return id_


def describe(ec2: Any, group: str) -> dict[str, Any]:
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return dict(found)


def rules_of(ec2: Any, group: str) -> list[dict[str, Any]]:
    by_group = [{"Name": "group-id", "Values": [group]}]
    answer = ec2.describe_security_group_rules(Filters=by_group)
    return list(answer["SecurityGroupRules"])


def refused(call: Callable[..., Any], **request: Any) -> tuple[str, str]:
    """Return code and text of the error that a call ends with."""
    with pytest.raises(ClientError) as refusal:
        call(**request)
    error: Any = refusal.value.response["Error"]
    return error["Code"], error["Message"]


def run(plane: ControlPlane, *groups: str) -> dict[str, Any]:
    network = {"subnets": ["subnet-default"], "securityGroups": list(groups)}
    answer: dict[str, Any] = plane.client().run_task(
        taskDefinition="web",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": network},
    )
    return answer


def test_new_group_lets_out_everything_and_has_its_tags(ec2: Any) -> None:
    tags = [{"Key": "team", "Value": "a"}]
    made = ec2.create_security_group(
        GroupName="db",
        Description="the db",
        VpcId="vpc-default",
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
    )

    group = describe(ec2, made["GroupId"])
    assert made["Tags"] == group["Tags"] == tags
    assert made["SecurityGroupArn"] == group["SecurityGroupArn"]
    assert group["IpPermissions"] == []
    (all_out,) = group["IpPermissionsEgress"]
    assert all_out["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]
    assert all_out["Ipv6Ranges"] == [{"CidrIpv6": "::/0"}]


def test_rules_are_added_shown_and_taken_away(ec2: Any) -> None:
    group = make_group(ec2)
    from_itself = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ping = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}

    made = ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[HTTP, from_itself, ping],
        TagSpecifications=[
            {"ResourceType": "security-group-rule", "Tags": [{"Key": "k", "Value": "v"}]}
        ],
    )["SecurityGroupRules"]

    assert [rule.get("CidrIpv4") for rule in made] == ["10.0.0.0/8", None, None]
    assert made[1]["ReferencedGroupInfo"] == {"GroupId": group, "UserId": "000000000000"}
    assert all(rule["Tags"] == [{"Key": "k", "Value": "v"}] for rule in made)
    shown = {rule["SecurityGroupRuleId"]: rule for rule in rules_of(ec2, group)}
    assert [shown[rule["SecurityGroupRuleId"]] for rule in made] == made
    permissions = describe(ec2, group)["IpPermissions"]
    assert permissions[0]["IpRanges"] == [{"CidrIp": "10.0.0.0/8", "Description": "the office"}]
    assert permissions[1]["UserIdGroupPairs"][0]["GroupId"] == group
    assert (permissions[2]["FromPort"], permissions[2]["ToPort"]) == (8, -1)

    revoked = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[HTTP])
    ec2.revoke_security_group_ingress(
        GroupId=group, SecurityGroupRuleIds=[made[1]["SecurityGroupRuleId"]]
    )

    (gone,) = revoked["RevokedSecurityGroupRules"]
    assert gone["SecurityGroupRuleId"] == made[0]["SecurityGroupRuleId"]
    left = [rule["SecurityGroupRuleId"] for rule in rules_of(ec2, group) if not rule["IsEgress"]]
    assert left == [made[2]["SecurityGroupRuleId"]]


def test_egress_rule_is_replaced_as_terraform_does(ec2: Any) -> None:
    group = make_group(ec2)
    every = {
        "IpProtocol": "-1",
        "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
        "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
    }

    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[every])
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[HTTP])

    (egress,) = describe(ec2, group)["IpPermissionsEgress"]
    assert (egress["FromPort"], egress["IpRanges"][0]["CidrIp"]) == (80, "10.0.0.0/8")


def test_rule_is_changed_under_its_id_and_described_anew(ec2: Any) -> None:
    group = make_group(ec2)
    (rule,) = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[HTTP])[
        "SecurityGroupRules"
    ]
    id_ = rule["SecurityGroupRuleId"]
    changed = {"IpProtocol": "6", "FromPort": 443, "ToPort": 444, "CidrIpv4": "10.9.0.0/16"}

    ec2.modify_security_group_rules(
        GroupId=group,
        SecurityGroupRules=[{"SecurityGroupRuleId": id_, "SecurityGroupRule": changed}],
    )
    (shown,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[id_])["SecurityGroupRules"]
    ec2.update_security_group_rule_descriptions_ingress(
        GroupId=group,
        SecurityGroupRuleDescriptions=[{"SecurityGroupRuleId": id_, "Description": "new"}],
    )
    (described,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[id_])[
        "SecurityGroupRules"
    ]

    assert (shown["IpProtocol"], shown["FromPort"], shown["CidrIpv4"]) == (
        "tcp",
        443,
        "10.9.0.0/16",
    )
    assert "Description" not in shown
    assert described["Description"] == "new"


def test_rules_of_the_old_form_are_taken(ec2: Any) -> None:
    make_group(ec2)

    ec2.authorize_security_group_ingress(
        GroupName="db", IpProtocol="udp", FromPort=53, ToPort=53, CidrIp="10.0.0.0/8"
    )
    ec2.authorize_security_group_ingress(
        GroupName="db", IpProtocol="tcp", FromPort=1, ToPort=2, SourceSecurityGroupName="web"
    )

    (group,) = ec2.describe_security_groups(GroupNames=["db"])["SecurityGroups"]
    assert group["IpPermissions"][0]["IpRanges"] == [{"CidrIp": "10.0.0.0/8"}]
    assert group["IpPermissions"][1]["UserIdGroupPairs"][0]["GroupId"] == "sg-web"


@pytest.mark.parametrize(
    ("permission", "code", "text"),
    [
        pytest.param(HTTP, "InvalidPermission.Duplicate", "peer: 10.0.0.0/8, TCP", id="twice"),
        pytest.param(
            {**HTTP, "ToPort": 79}, "InvalidParameterValue", "port range (80:79)", id="range"
        ),
        pytest.param(
            {**HTTP, "ToPort": 65536}, "InvalidParameterValue", "(65536) out of range", id="port"
        ),
        pytest.param({**HTTP, "IpProtocol": "xyz"}, "InvalidParameterValue", "xyz", id="protocol"),
        pytest.param(
            {**HTTP, "IpRanges": [{"CidrIp": "10.0.0/8"}]},
            "InvalidParameterValue",
            "CIDR block 10.0.0/8 is malformed",
            id="CIDR",
        ),
        pytest.param({**HTTP, "IpRanges": []}, "MissingParameter", "CidrIp", id="no source"),
        pytest.param(
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-0"}]},
            "InvalidGroup.NotFound",
            "'sg-0' does not exist",
            id="group",
        ),
        pytest.param(
            {"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": "pl-0"}]},
            "InvalidPrefixListID.NotFound",
            "pl-0",
            id="prefix list",
        ),
        pytest.param(
            {"IpProtocol": "-1", "IpRanges": [{"CidrIp": f"10.0.{n}.0/24"} for n in range(60)]},
            "RulesPerSecurityGroupLimitExceeded",
            "maximum number",
            id="limit",
        ),
    ],
)
def test_wrong_rule_is_refused_and_nothing_is_kept(
    ec2: Any, permission: dict[str, Any], code: str, text: str
) -> None:
    group = make_group(ec2)
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[HTTP])
    before = describe(ec2, group)

    said = refused(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[permission])

    assert said[0] == code
    assert text in said[1]
    assert describe(ec2, group) == before


def test_what_is_not_there_is_not_revoked(ec2: Any) -> None:
    group = make_group(ec2)
    by_id = refused(
        ec2.revoke_security_group_ingress, GroupId=group, SecurityGroupRuleIds=["sgr-1"]
    )

    assert refused(ec2.revoke_security_group_ingress, GroupId=group, IpPermissions=[HTTP])[0] == (
        "InvalidPermission.NotFound"
    )
    assert by_id[0] == "InvalidSecurityGroupRuleId.NotFound"


def test_group_that_is_named_or_used_is_not_deleted(ec2: Any) -> None:
    group, other = make_group(ec2), make_group(ec2, "lb")
    pair = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=[pair])

    assert refused(ec2.delete_security_group, GroupId=group) == (
        "DependencyViolation",
        f"resource {group} has a dependent object",
    )
    assert refused(ec2.delete_security_group, GroupId="sg-default") == (
        "CannotDelete",
        'the specified group: "sg-default" name: "default" cannot be deleted by a user',
    )
    assert refused(ec2.delete_security_group, GroupId="sg-web")[0] == "OperationNotPermitted"
    assert refused(ec2.delete_security_group, GroupId="x")[0] == "InvalidGroupId.Malformed"

    ec2.delete_security_group(GroupId=other)
    assert ec2.delete_security_group(GroupId=group)["GroupId"] == group
    assert refused(ec2.delete_security_group, GroupId=group)[0] == "InvalidGroup.NotFound"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param({"GroupName": "web"}, "InvalidGroup.Duplicate", id="name taken"),
        pytest.param({"GroupName": "sg-x"}, "InvalidParameterValue", id="as an id"),
        pytest.param({"GroupName": "default"}, "InvalidParameterValue", id="reserved"),
        pytest.param({"GroupName": "ä"}, "InvalidParameterValue", id="characters"),
        pytest.param({"VpcId": "vpc-1"}, "InvalidVpcID.NotFound", id="VPC"),
        pytest.param({"DryRun": True}, "DryRunOperation", id="dry run"),
    ],
)
def test_group_that_can_not_be_is_refused(ec2: Any, request_: dict[str, Any], code: str) -> None:
    asked = {"GroupName": "db", "Description": "d", **request_}

    assert refused(ec2.create_security_group, **asked)[0] == code
    assert len(ec2.describe_security_groups()["SecurityGroups"]) == 2


def test_tags_are_put_found_and_taken_away(ec2: Any) -> None:
    group = make_group(ec2)
    tags = [{"Key": "team", "Value": "a"}, {"Key": "stage", "Value": "test"}]

    ec2.create_tags(Resources=[group, "vpc-default", "subnet-default"], Tags=tags)
    ec2.delete_tags(Resources=[group], Tags=[{"Key": "stage"}, {"Key": "team", "Value": "b"}])

    assert describe(ec2, group)["Tags"] == [tags[0]]
    by_tag = [{"Name": "tag:stage", "Values": ["t*"]}]
    assert ec2.describe_security_groups(Filters=by_tag)["SecurityGroups"] == []
    assert [vpc["VpcId"] for vpc in ec2.describe_vpcs(Filters=by_tag)["Vpcs"]] == ["vpc-default"]
    of_group = [{"Name": "resource-id", "Values": [group]}]
    assert ec2.describe_tags(Filters=of_group)["Tags"] == [
        {"Key": "team", "ResourceId": group, "ResourceType": "security-group", "Value": "a"}
    ]
    assert refused(ec2.create_tags, Resources=["sg-0"], Tags=tags)[0] == "InvalidID"


async def test_task_is_told_the_rules_as_they_are_when_it_starts(
    plane: ControlPlane, ec2: Any
) -> None:
    group = await asyncio.to_thread(make_group, ec2)
    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(
            ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[HTTP]
        )
        await asyncio.to_thread(run, plane, group)
        task = await agent.take()

        in_use = await asyncio.to_thread(refused, ec2.delete_security_group, GroupId=group)

    (told,) = task["securityGroups"]
    assert (told["id"], told["ingress"][0]["cidrs"]) == (group, ["10.0.0.0/8"])
    assert in_use[0] == "DependencyViolation"


async def test_eni_is_moved_to_another_group_and_its_agent_is_told(
    plane: ControlPlane, ec2: Any
) -> None:
    group = await asyncio.to_thread(make_group, ec2)
    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(run, plane, "sg-default")
        task = await agent.take()
        eni = task["elasticNetworkInterfaces"][0]["ec2Id"]
        await agent.bring_up(task)

        await asyncio.to_thread(
            ec2.modify_network_interface_attribute, NetworkInterfaceId=eni, Groups=[group]
        )
        again = await agent.take()
        shown = await asyncio.to_thread(ec2.describe_network_interfaces, NetworkInterfaceIds=[eni])
        known = await asyncio.to_thread(plane.client().describe_tasks, tasks=[again["arn"]])

    assert again["arn"] == task["arn"]
    assert again["elasticNetworkInterfaces"][0]["securityGroups"] == [group]
    assert [one["id"] for one in again["securityGroups"]] == [group]
    (interface,) = shown["NetworkInterfaces"]
    assert interface["Groups"] == [{"GroupId": group, "GroupName": "db"}]
    assert known["tasks"][0]["lastStatus"] == "RUNNING"


@pytest.mark.parametrize(
    "cidr", ["1.2.3.4/0.0.0.0", "10.1.2.3/0.0.0.255", "10.1.2.3", "10.0.0.0/", "10.0.0.0/33"]
)
def test_range_with_a_mask_or_without_a_length_is_malformed(ec2: Any, cidr: str) -> None:
    """Python would read the first one as all addresses."""
    with pytest.raises(ClientError, match="is malformed"):
        ec2.authorize_security_group_ingress(
            GroupId="sg-default",
            IpPermissions=[
                {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{"CidrIp": cidr}]}
            ],
        )


def test_what_can_not_stand_in_an_answer_is_refused(ec2: Any) -> None:
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.create_tags(Resources=["sg-default"], Tags=[{"Key": "a\0b", "Value": "c"}])
