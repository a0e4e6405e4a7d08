"""Security groups as plain data."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from fargate_agent.wire.security_groups import SecurityGroupMessage, SecurityGroupRule


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePlan:
    """What one rule of a security group allows; see `wire.security_groups`."""

    protocol: str
    from_port: int = -1
    to_port: int = -1
    cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """One security group."""

    id: str
    ingress: tuple[RulePlan, ...] = ()
    egress: tuple[RulePlan, ...] = ()
    members: frozenset[IPv4Address | IPv6Address] = frozenset()
    """Addresses of its members that other agents have attached."""


def plan_groups(messages: Iterable[SecurityGroupMessage]) -> tuple[GroupPlan, ...]:
    """Return the groups of a message as plain data."""
    return tuple(
        GroupPlan(
            id=message.id,
            ingress=tuple(_plan_rule(rule) for rule in message.ingress),
            egress=tuple(_plan_rule(rule) for rule in message.egress),
            members=frozenset(message.members),
        )
        for message in messages
    )


def _plan_rule(rule: SecurityGroupRule) -> RulePlan:
    return RulePlan(
        protocol=rule.protocol,
        from_port=rule.from_port,
        to_port=rule.to_port,
        cidrs=rule.cidrs,
        groups=rule.groups,
    )
