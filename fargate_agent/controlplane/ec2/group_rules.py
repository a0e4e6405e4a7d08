"""Rules of security groups: added, taken away, changed, described."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.ec2.changes import DONE, Change, find, missing
from fargate_agent.controlplane.ec2.networks import has_ports, resource_arn
from fargate_agent.controlplane.ec2.rules import (
    Rule,
    check_count,
    parse_permissions,
    parse_rule,
    read_rule,
)
from fargate_agent.controlplane.ec2.security_groups import (
    find_group,
    find_meant_group,
    find_named_group,
)
from fargate_agent.controlplane.ec2.tags import drop_tags, put_tags, read_tags
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.networks import GroupRow, NetworkObject, RuleRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import note_rules
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc.groups import PREFIX_LIST
from fargate_agent.controlplane.vpc.seeding import new_rule_id

_ID_ABSENT: Final = "InvalidSecurityGroupRuleId.NotFound"
_ID_KIND: Final = "security group rule ID"


async def authorize(plane: Plane, session: Session, request: Json, *, is_egress: bool) -> Json:
    """Add rules to a group."""
    group = await find_meant_group(plane, session, request)
    wanted = [await _settle(session, group, rule) for rule in parse_permissions(request)]
    rows = await _read_rows(session, group, is_egress)
    known = {read_rule(row).key for row in rows}
    for rule in wanted:
        if rule.key in known:
            raise ApiError(
                "InvalidPermission.Duplicate", f"the specified rule {rule} already exists"
            )
    await _check_count(session, [*known, *wanted])
    position = max((row.position for row in rows), default=0)
    made = []
    for number, rule in enumerate(wanted, start=position + 1):
        row = RuleRow(id=new_rule_id(), group_id=group.id, position=number, is_egress=is_egress)
        _fill(row, rule)
        made.append(row)
    session.add_all(made)
    _note_change(session, group)
    await session.flush()
    for row in made:
        await put_tags(session, request, "security-group-rule", row.id)
    tags = await read_tags(session, [row.id for row in made])
    return {
        "Return": True,
        "SecurityGroupRules": [render_rule(plane.arns, row, tags[row.id]) for row in made],
    }


async def revoke(plane: Plane, session: Session, request: Json, *, is_egress: bool) -> Json:
    """Take rules away from a group."""
    group = await find_meant_group(plane, session, request)
    rows = await _read_rows(session, group, is_egress)
    gone = await _find_meant(session, group, rows, request)
    for row in gone:
        await session.delete(row)
    await drop_tags(session, [row.id for row in gone])
    _note_change(session, group)
    await session.flush()
    return {
        "Return": True,
        "RevokedSecurityGroupRules": [_render_revoked(row) for row in gone],
    }


async def modify_rules(plane: Plane, session: Session, request: Json) -> Json:
    """Put other rules in the place of some, under the same ids."""
    del plane
    group = await find_group(session, request["GroupId"])
    rows = {
        row.id: row
        for is_egress in (False, True)
        for row in await _read_rows(session, group, is_egress)
    }
    for update in request.get("SecurityGroupRules", []):
        row = _of_group(rows, update.get("SecurityGroupRuleId", ""))
        rule = await _settle(session, group, parse_rule(update.get("SecurityGroupRule", {})))
        _fill(row, rule)
    for is_egress in (False, True):
        rules = [read_rule(row) for row in rows.values() if row.is_egress == is_egress]
        for position, rule in enumerate(rules):
            if rule.key in {other.key for other in rules[:position]}:
                raise ApiError(
                    "InvalidPermission.Duplicate", f"the specified rule {rule} already exists"
                )
        await _check_count(session, rules)
    _note_change(session, group)
    return DONE


async def update_descriptions(
    plane: Plane, session: Session, request: Json, *, is_egress: bool
) -> Json:
    """Describe rules in other words."""
    group = await find_meant_group(plane, session, request)
    rows = await _read_rows(session, group, is_egress)
    by_id = {row.id: row for row in rows}
    for each in request.get("SecurityGroupRuleDescriptions", []):
        row = _of_group(by_id, each.get("SecurityGroupRuleId", ""))
        row.description = each.get("Description") or None
    if "IpPermissions" in request:
        by_key = {read_rule(row).key: row for row in rows}
        for rule in parse_permissions(request):
            settled = await _settle(session, group, rule)
            if settled.key not in by_key:
                raise _rule_absent()
            by_key[settled.key].description = settled.description
    elif not request.get("SecurityGroupRuleDescriptions"):
        raise missing("IpPermissions")
    return DONE


async def read_group_rules(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the rules of all groups in the order of their ids, those behind `after`."""
    query = select(RuleRow).where(RuleRow.id > after).order_by(RuleRow.id)
    if ids is not None:
        query = query.where(RuleRow.id.in_(ids))
    rows = (await session.scalars(query)).all()
    tags = await read_tags(session, [row.id for row in rows])
    for row in rows:
        yield render_rule(plane.arns, row, tags[row.id])


def render_rule(arns: Arns, row: RuleRow, tags: list[Json]) -> Json:
    """Return a rule as DescribeSecurityGroupRules answers it."""
    shown = {
        **_render_what(row),
        "GroupOwnerId": arns.account,
        "SecurityGroupRuleArn": resource_arn(arns, "security-group-rule", row.id),
        "Tags": tags,
    }
    if row.source_group is not None:
        shown["ReferencedGroupInfo"] = {"GroupId": row.source_group, "UserId": arns.account}
    return shown


def _render_revoked(row: RuleRow) -> Json:
    shown = _render_what(row)
    if row.source_group is not None:
        shown["ReferencedGroupId"] = row.source_group
    return shown


def _render_what(row: RuleRow) -> Json:
    shown: Json = {
        "FromPort": row.from_port if has_ports(row.protocol) else -1,
        "GroupId": row.group_id,
        "IpProtocol": row.protocol,
        "IsEgress": row.is_egress,
        "SecurityGroupRuleId": row.id,
        "ToPort": row.to_port if has_ports(row.protocol) else -1,
    }
    if row.cidr is not None:
        shown["CidrIpv6" if ":" in row.cidr else "CidrIpv4"] = row.cidr
    if row.prefix_list is not None:
        shown["PrefixListId"] = row.prefix_list
    if row.description is not None:
        shown["Description"] = row.description
    return shown


async def _read_rows(session: Session, group: GroupRow, is_egress: bool) -> Sequence[RuleRow]:
    chosen = select(RuleRow).where(RuleRow.group_id == group.id, RuleRow.is_egress == is_egress)
    return (await session.scalars(chosen.order_by(RuleRow.position))).all()


async def _find_meant(
    session: Session, group: GroupRow, rows: Sequence[RuleRow], request: Json
) -> list[RuleRow]:
    if ids := request.get("SecurityGroupRuleIds"):
        by_id = {row.id: row for row in rows}
        return [_of_group(by_id, id_) for id_ in dict.fromkeys(ids)]
    by_key = {read_rule(row).key: row for row in rows}
    found = []
    for rule in parse_permissions(request):
        settled = await _settle(session, group, rule, may_be_gone=True)
        if settled.key not in by_key:
            raise _rule_absent()
        found.append(by_key[settled.key])
    return found


def _of_group(rows: dict[str, RuleRow], id_: str) -> RuleRow:
    if id_ not in rows:
        raise ApiError(_ID_ABSENT, f"The {_ID_KIND} '{id_[:64]}' does not exist")
    return rows[id_]


def _rule_absent() -> ApiError:
    return ApiError(
        "InvalidPermission.NotFound", "The specified rule does not exist in this security group."
    )


async def _settle(
    session: Session, group: GroupRow, rule: Rule, *, may_be_gone: bool = False
) -> Rule:
    """Return a rule whose source or destination is there, and is named by its id."""
    if rule.prefix_list is not None and not may_be_gone:
        found = await find(
            session,
            NetworkObject,
            rule.prefix_list,
            "InvalidPrefixListID.NotFound",
            "prefix list ID",
        )
        if found.kind != PREFIX_LIST:
            raise ApiError(
                "InvalidPrefixListID.NotFound",
                f"The prefix list ID '{rule.prefix_list}' does not exist",
            )
    if rule.source_group is None:
        return rule
    if not rule.source_group.startswith("sg-"):
        named = await find_named_group(session, group.vpc_id, rule.source_group)
        return replace(rule, source_group=named.id)
    if not may_be_gone:
        source = await find_group(session, rule.source_group)
        if source.vpc_id != group.vpc_id:
            raise ApiError(
                "InvalidGroup.NotFound",
                "You have specified two resources that belong to different networks.",
            )
    return rule


async def _check_count(session: Session, rules: Sequence[Rule]) -> None:
    lists = {rule.prefix_list for rule in rules if rule.prefix_list is not None}
    chosen = select(NetworkObject).where(NetworkObject.id.in_(lists))
    weights = {
        row.id: int(row.document["MaxEntries"])
        for row in (await session.scalars(chosen) if lists else ())
    }
    check_count(rules, weights)


def _fill(row: RuleRow, rule: Rule) -> None:
    row.protocol = rule.protocol
    row.from_port = rule.from_port
    row.to_port = rule.to_port
    row.cidr = rule.cidr
    row.source_group = rule.source_group
    row.prefix_list = rule.prefix_list
    row.description = rule.description


def _note_change(session: Session, group: GroupRow) -> None:
    group.changed = True
    note_rules(session, [group.id])


CHANGES: Final[dict[str, Change]] = {
    "AuthorizeSecurityGroupEgress": partial(authorize, is_egress=True),
    "AuthorizeSecurityGroupIngress": partial(authorize, is_egress=False),
    "ModifySecurityGroupRules": modify_rules,
    "RevokeSecurityGroupEgress": partial(revoke, is_egress=True),
    "RevokeSecurityGroupIngress": partial(revoke, is_egress=False),
    "UpdateSecurityGroupRuleDescriptionsEgress": partial(update_descriptions, is_egress=True),
    "UpdateSecurityGroupRuleDescriptionsIngress": partial(update_descriptions, is_egress=False),
}
