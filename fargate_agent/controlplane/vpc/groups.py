"""Security groups as agents are told them.

An agent needs the groups of its own ENIs, and the members of those that their rules name. The
version of a group moves on, in the transaction that changes something, whenever an agent may have
to be told of it again: its rules, the entries of a prefix list that a rule names, or the members of
a group that any rule names. `SECURITY_GROUPS` is announced with it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

from sqlalchemy import or_, select

from fargate_agent.controlplane.state.model import LIVE, Eni, EniGroup, Task
from fargate_agent.controlplane.state.networks import GroupRow, NetworkObject, RuleRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.vpc.addresses import IN_USE
from fargate_agent.wire.security_groups import SecurityGroupMessage, SecurityGroupRule

PREFIX_LIST: Final = "prefix-list"
"""`kind` of the rows of prefix lists."""


class _Rule(NamedTuple):
    """A row of `RuleRow`, as far as an agent is told it."""

    is_egress: bool
    protocol: str
    from_port: int
    to_port: int
    cidr: str | None
    source_group: str | None
    prefix_list: str | None


Address = IPv4Address | IPv6Address
Cidr = IPv4Network | IPv6Network


async def read_agent_groups(session: Session, instance_id: str) -> set[str]:
    """Return the groups of the ENIs that the tasks of a container instance have."""
    chosen = (
        select(EniGroup.group_id)
        .join(Eni, Eni.id == EniGroup.eni_id)
        .join(Task, Task.id == Eni.task_id)
        .where(Task.instance_id == instance_id, LIVE, IN_USE)
    )
    return set(await session.scalars(chosen.distinct()))


async def read_group_versions(session: Session, group_ids: Collection[str]) -> dict[str, int]:
    """Return the version of each of the groups that is there, and of those that their rules name.

    What an agent was told is out of date when a version is another, and only then.
    """
    named = select(RuleRow.source_group).where(RuleRow.group_id.in_(group_ids))
    chosen = select(GroupRow.id, GroupRow.version).where(
        or_(GroupRow.id.in_(group_ids), GroupRow.id.in_(named))
    )
    return dict((await session.execute(chosen)).all())


async def read_group_messages(
    session: Session, group_ids: Collection[str], *, except_agent: str | None
) -> list[SecurityGroupMessage]:
    """Return the groups that are there, and those that their rules name, in order of their ids.

    Members are addresses in use by tasks of other container instances than `except_agent`. Those of
    a group that no rule names are left out: nobody asks for them.
    """
    rules = await _read_rules(session, group_ids)
    lists = await read_prefix_lists(
        session, {rule.prefix_list for each in rules.values() for rule in each if rule.prefix_list}
    )
    members = await _read_members(session, rules, except_agent)
    return [
        SecurityGroupMessage(
            id=id_,
            ingress=_render_rules((rule for rule in rules[id_] if not rule.is_egress), lists),
            egress=_render_rules((rule for rule in rules[id_] if rule.is_egress), lists),
            members=tuple(members[id_]),
        )
        for id_ in sorted(rules)
    ]


async def read_prefix_lists(session: Session, ids: Collection[str]) -> dict[str, tuple[Cidr, ...]]:
    """Return the ranges of prefix lists by their ids."""
    if not ids:
        return {}
    chosen = select(NetworkObject).where(
        NetworkObject.kind == PREFIX_LIST, NetworkObject.id.in_(ids)
    )
    return {
        row.id: tuple(ip_network(entry["Cidr"]) for entry in row.document["Entries"])
        for row in await session.scalars(chosen)
    }


async def _read_rules(session: Session, group_ids: Collection[str]) -> dict[str, list[_Rule]]:
    """Return the rules of groups that are there, and of those that their rules name.

    As plain rows, in one statement: this is asked for at each start of a task.
    """
    named = select(RuleRow.source_group).where(RuleRow.group_id.in_(group_ids))
    chosen = (
        select(
            GroupRow.id,
            RuleRow.is_egress,
            RuleRow.protocol,
            RuleRow.from_port,
            RuleRow.to_port,
            RuleRow.cidr,
            RuleRow.source_group,
            RuleRow.prefix_list,
        )
        .join_from(GroupRow, RuleRow, RuleRow.group_id == GroupRow.id, isouter=True)
        .where(or_(GroupRow.id.in_(group_ids), GroupRow.id.in_(named)))
        .order_by(RuleRow.position)
    )
    rules: dict[str, list[_Rule]] = {}
    for group_id, *members in (await session.execute(chosen)).all():
        of_group = rules.setdefault(group_id, [])
        if members[0] is not None:  # a group without rules has one row of nothing
            of_group.append(_Rule._make(members))
    return rules


async def _has_others(session: Session, instance_id: str) -> bool:
    """Whether another container instance has tasks; looked up in the index of live ones."""
    before = select(Task.id).where(LIVE, Task.instance_id < instance_id).limit(1)
    behind = select(Task.id).where(LIVE, Task.instance_id > instance_id).limit(1)
    return bool(await session.scalar(select(or_(before.exists(), behind.exists()))))


async def _read_members(
    session: Session, group_ids: Collection[str], except_agent: str | None
) -> dict[str, list[Address]]:
    members: dict[str, list[Address]] = defaultdict(list)
    if except_agent is not None and not await _has_others(session, except_agent):
        return members
    chosen = (
        select(EniGroup.group_id, Eni.address, Eni.ipv6_address)
        .join(Eni, Eni.id == EniGroup.eni_id)
        .where(
            EniGroup.group_id.in_(group_ids),
            EniGroup.group_id.in_(select(RuleRow.source_group)),
            IN_USE,
        )
        .order_by(Eni.id)
    )
    if except_agent is not None:
        chosen = chosen.join(Task, Task.id == Eni.task_id).where(Task.instance_id != except_agent)
    for group_id, address, ipv6_address in (await session.execute(chosen)).all():
        members[group_id].append(ip_address(address))
        if ipv6_address is not None:
            members[group_id].append(ip_address(ipv6_address))
    return members


def _render_rules(
    rules: Iterable[_Rule], lists: dict[str, tuple[Cidr, ...]]
) -> tuple[SecurityGroupRule, ...]:
    """Return one rule for each protocol and range of ports."""
    cidrs: dict[tuple[str, int, int], dict[Cidr, None]] = defaultdict(dict)
    groups: dict[tuple[str, int, int], dict[str, None]] = defaultdict(dict)
    keys: dict[tuple[str, int, int], None] = {}
    for rule in rules:
        key = (rule.protocol, rule.from_port, rule.to_port)
        keys[key] = None
        if rule.cidr is not None:
            cidrs[key][ip_network(rule.cidr)] = None
        if rule.prefix_list is not None:
            cidrs[key] |= dict.fromkeys(lists.get(rule.prefix_list, ()))
        if rule.source_group is not None:
            groups[key][rule.source_group] = None
    return tuple(
        SecurityGroupRule(
            protocol=key[0],
            from_port=key[1],
            to_port=key[2],
            cidrs=tuple(cidrs[key]),
            groups=tuple(groups[key]),
        )
        for key in keys
    )
