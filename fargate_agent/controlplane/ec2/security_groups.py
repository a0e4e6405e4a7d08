"""Security groups: made, deleted, given to an ENI."""

import re
import time
from typing import Final

from sqlalchemy import delete, func, select

from fargate_agent.controlplane.ec2.changes import (
    Change,
    check_id,
    find,
    invalid_value,
    missing,
    new_resource_id,
    of_settings,
    unsupported_here,
)
from fargate_agent.controlplane.ec2.networks import resource_arn
from fargate_agent.controlplane.ec2.tags import drop_tags, put_tags
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.announcements import instance_topic
from fargate_agent.controlplane.state.model import Eni, EniGroup, Task
from fargate_agent.controlplane.state.networks import GroupRow, RuleRow, VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import announce, note_members
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import IN_USE
from fargate_agent.controlplane.vpc.network import MAX_SECURITY_GROUPS
from fargate_agent.controlplane.vpc.seeding import new_rule_id

MAX_GROUPS: Final = 2500
"""Source: Amazon VPC user guide, "Amazon VPC quotas"."""
DEFAULT_NAME: Final = "default"

_TEXT: Final = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}")
_TEXT_SAID: Final = (
    "strings less than 256 characters from the following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"
)


async def find_group(session: Session, id_: str) -> GroupRow:
    """Return a security group.

    Raises:
        ApiError: there is none.
    """
    check_id(id_, "sg", "InvalidGroupId.Malformed")
    return await find(session, GroupRow, id_, "InvalidGroup.NotFound", "security group")


async def find_meant_group(plane: Plane, session: Session, request: Json) -> GroupRow:
    """Return the group that a request means by id, or by name in the default VPC.

    Raises:
        ApiError: there is none.
    """
    if "GroupId" in request:
        return await find_group(session, request["GroupId"])
    if "GroupName" not in request:
        raise missing("GroupId")
    return await find_named_group(session, plane.settings.vpc_id, request["GroupName"])


async def find_named_group(session: Session, vpc_id: str, name: str) -> GroupRow:
    """Return the group of a VPC that has a name.

    Raises:
        ApiError: there is none.
    """
    chosen = select(GroupRow).where(GroupRow.vpc_id == vpc_id, GroupRow.name == name)
    row = await session.scalar(chosen)
    if row is None:
        raise ApiError(
            "InvalidGroup.NotFound",
            f"The security group '{name[:128]}' does not exist in VPC '{vpc_id}'",
        )
    return row


async def create_security_group(plane: Plane, session: Session, request: Json) -> Json:
    """Make a group that lets everything out."""
    name, description = request["GroupName"], request["Description"]
    _check_texts(name, description)
    vpc_id = request.get("VpcId", plane.settings.vpc_id)
    vpc = await find(session, VpcRow, vpc_id, "InvalidVpcID.NotFound", "vpc ID")
    taken = select(GroupRow.id).where(GroupRow.vpc_id == vpc.id, GroupRow.name == name)
    if await session.scalar(taken) is not None:
        raise ApiError(
            "InvalidGroup.Duplicate",
            f"The security group '{name}' already exists for VPC '{vpc.id}'",
        )
    if (await session.scalar(select(func.count()).select_from(GroupRow)) or 0) >= MAX_GROUPS:
        raise ApiError(
            "SecurityGroupLimitExceeded", "The maximum number of security groups has been reached."
        )
    group = add_group(session, vpc, name, description)
    await session.flush()
    tags = await put_tags(session, request, "security-group", group.id)
    return {
        "GroupId": group.id,
        "SecurityGroupArn": resource_arn(plane.arns, "security-group", group.id),
        "Tags": tags,
    }


def add_group(
    session: Session, vpc: VpcRow, name: str, description: str, *, is_open: bool = False
) -> GroupRow:
    """Make a group with the rules that a new one has: everything may go out.

    `is_open`: everything may come in from its own members, as a VPC's default group has it.
    """
    group = GroupRow(
        id=new_resource_id("sg"),
        vpc_id=vpc.id,
        name=name,
        description=description,
        from_settings=False,
        changed=False,
        version=1,
        created_at=time.time(),
    )
    session.add(group)
    cidrs = ["0.0.0.0/0", *(["::/0"] if vpc.ipv6_cidr_blocks else [])]
    peers: list[tuple[bool, str | None, str | None]] = [(True, cidr, None) for cidr in cidrs]
    if is_open:
        peers.append((False, None, group.id))
    for position, (is_egress, cidr, source) in enumerate(peers):
        session.add(
            RuleRow(
                id=new_rule_id(),
                group_id=group.id,
                position=position,
                is_egress=is_egress,
                protocol="-1",
                from_port=-1,
                to_port=-1,
                cidr=cidr,
                source_group=source,
            )
        )
    return group


def _check_texts(name: str, description: str) -> None:
    for what, text in (("description", description), ("name", name)):
        if _TEXT.fullmatch(text) is None:
            raise invalid_value(f"Invalid security group {what}. Valid {what}s are {_TEXT_SAID}")
    if name.startswith("sg-"):
        raise invalid_value("Group names may not be in the format sg-*.")
    if name == DEFAULT_NAME:
        raise invalid_value(f"Cannot use reserved security group name: {name}")


async def delete_security_group(plane: Plane, session: Session, request: Json) -> Json:
    """Delete a group that no ENI is in and no other group's rule names."""
    group = await find_meant_group(plane, session, request)
    vpc = await session.get_one(VpcRow, group.vpc_id)
    if vpc.default_group == group.id:
        raise ApiError(
            "CannotDelete",
            f'the specified group: "{group.id}" name: "{group.name}" cannot be deleted by a user',
        )
    if group.from_settings:
        raise of_settings("security group", group.id)
    members = select(EniGroup.eni_id).join(Eni).where(EniGroup.group_id == group.id, IN_USE)
    named = select(RuleRow.id).where(RuleRow.source_group == group.id, RuleRow.group_id != group.id)
    for query in (members, named):
        if await session.scalar(query.limit(1)) is not None:
            raise ApiError("DependencyViolation", f"resource {group.id} has a dependent object")
    await remove_group(session, group)
    return {"Return": True, "GroupId": group.id}


async def remove_group(session: Session, group: GroupRow) -> None:
    """Delete a group with its rules and all tags of them."""
    rules = select(RuleRow.id).where(RuleRow.group_id == group.id)
    await drop_tags(session, [group.id, *await session.scalars(rules)])
    await session.execute(delete(RuleRow).where(RuleRow.group_id == group.id))
    await session.delete(group)
    await session.flush()


async def modify_network_interface(plane: Plane, session: Session, request: Json) -> Json:
    """Put an ENI into other groups; the agent of its task is told."""
    del plane
    id_ = request["NetworkInterfaceId"]
    eni = await session.get(Eni, id_)
    if eni is None or not eni.in_use:
        raise ApiError(
            "InvalidNetworkInterfaceID.NotFound",
            f"The networkInterface ID '{id_[:128]}' does not exist",
        )
    if others := sorted(request.keys() - {"NetworkInterfaceId", "Groups", "DryRun"}):
        raise unsupported_here(f"The attribute {others[0]} of a task's network interface")
    groups = list(dict.fromkeys(request.get("Groups", [])))
    if not groups:
        raise missing("SecurityGroupId")
    if len(groups) > MAX_SECURITY_GROUPS:
        raise ApiError(
            "SecurityGroupsPerInterfaceLimitExceeded",
            "The maximum number of security groups per interface has been reached.",
        )
    for group_id in groups:
        group = await find_group(session, group_id)
        if eni.vpc_id not in {None, group.vpc_id}:
            raise ApiError(
                "InvalidGroup.NotFound",
                "You have specified two resources that belong to different networks.",
            )
    await _move(session, eni, groups)
    return {}


async def _move(session: Session, eni: Eni, groups: list[str]) -> None:
    note_members(session, [*eni.security_groups, *groups])
    eni.security_groups = groups
    await session.execute(delete(EniGroup).where(EniGroup.eni_id == eni.id))
    session.add_all(EniGroup(eni_id=eni.id, group_id=group_id) for group_id in groups)
    task = await session.get_one(Task, eni.task_id)
    interfaces = [
        {**one, "securityGroups": groups} if one.get("ec2Id") == eni.id else one
        for one in task.message["elasticNetworkInterfaces"]
    ]
    task.message = {**task.message, "elasticNetworkInterfaces": interfaces}
    if task.delivery == "ACKED" and task.desired_status == "RUNNING":
        task.delivery = "CHANGED"  # so that the message goes out again, as it is now
    announce(session, instance_topic(task.instance_id))


CHANGES: Final[dict[str, Change]] = {
    "CreateSecurityGroup": create_security_group,
    "DeleteSecurityGroup": delete_security_group,
    "ModifyNetworkInterfaceAttribute": modify_network_interface,
}
