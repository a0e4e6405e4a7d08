"""How names are resolved in a task; pure."""

from ipaddress import IPv4Address, IPv4Network

from fargate_agent.plan.model import VPC_RESOLVER, DnsPlan, EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from fargate_agent.wire.messages import EniMessage


def plan_dns(message: EniMessage, eni: EniPlan) -> DnsPlan:
    """Decide for a task, by its first interface; `message` is about the same."""
    resolver = _find_base_plus_two(eni)
    if resolver in {eni.gateway, eni.address.ip} or str(resolver) in message.domain_name_servers:
        resolver = VPC_RESOLVER  # the address is another machine's
    return DnsPlan(
        servers=message.domain_name_servers or (str(resolver),),
        search=message.domain_name,
        hostname=message.private_dns_name or f"ip-{str(eni.address.ip).replace('.', '-')}",
        resolver=resolver,
    )


def _find_base_plus_two(eni: EniPlan) -> IPv4Address:
    """Return the base of the VPC's first range plus two.

    Only routed ENIs have it: on a LAN the address may be another machine's.
    Source: Amazon VPC User Guide, "Understanding Amazon DNS".
    """
    ranges = [one for one in eni.vpc_cidr_blocks if isinstance(one, IPv4Network)]
    if eni.kind is not EniKind.VETH or not ranges:
        return VPC_RESOLVER
    return ranges[0].network_address + 2
