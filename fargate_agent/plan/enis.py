"""From the ENIs of a message to those of a plan; pure."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan.model import EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from fargate_agent.wire.messages import EniMessage


def plan_enis(messages: tuple[EniMessage, ...], first_ifname: str) -> tuple[EniPlan, ...]:
    """Decide kind, name and addresses of every interface; the one with the lowest index is first.

    Raises:
        ResourceInitializationError: there is none, or one is of a kind that isn't supported.
    """
    if not messages:
        raise ResourceInitializationError("the task has no network interface")
    return tuple(
        _plan_eni(position, eni, first_ifname)
        for position, eni in enumerate(sorted(messages, key=lambda eni: eni.index))
    )


def change_groups(enis: tuple[EniPlan, ...], messages: Iterable[EniMessage]) -> tuple[EniPlan, ...]:
    """Return ENIs with the security groups that messages about them say."""
    groups = {message.ec2_id: message.security_groups for message in messages}
    return tuple(
        replace(eni, security_groups=groups.get(eni.id, eni.security_groups)) for eni in enis
    )


def change_messages(
    messages: Iterable[EniMessage], newer: Iterable[EniMessage]
) -> tuple[EniMessage, ...]:
    """Return messages about ENIs with the security groups of newer ones."""
    groups = {message.ec2_id: message.security_groups for message in newer}
    return tuple(
        message.model_copy(
            update={"security_groups": groups.get(message.ec2_id, message.security_groups)}
        )
        for message in messages
    )


def _plan_eni(position: int, eni: EniMessage, first_ifname: str) -> EniPlan:
    protocol = eni.interface_association_protocol
    if protocol not in set(EniKind):
        raise ResourceInitializationError(
            f"ENI {eni.ec2_id}: an interface of kind '{protocol}' is not supported here"
        )
    kind = EniKind(protocol)
    macvlan = eni.interface_macvlan_properties
    if kind is EniKind.MACVLAN and macvlan is None:
        raise ResourceInitializationError(f"ENI {eni.ec2_id}: macvlan without a parent interface")
    primary = next((a.private_address for a in eni.ipv4_addresses if a.primary), None)
    if primary is None:
        raise ResourceInitializationError(f"ENI {eni.ec2_id} has no primary IPv4 address")
    gateway = eni.subnet_gateway_ipv4_address
    ipv6, ipv6_gateway = _plan_ipv6(eni)
    return EniPlan(
        kind=kind,
        id=eni.ec2_id,
        attachment_arn=eni.attachment_arn,
        ifname=_number_ifname(first_ifname, position),
        mac=eni.mac_address,
        address=IPv4Interface((primary, gateway.network.prefixlen)),
        gateway=gateway.ip,
        ipv6_address=ipv6,
        ipv6_gateway=ipv6_gateway,
        mtu=eni.mtu,
        parent=macvlan.parent_interface if macvlan else None,
        primary=position == 0,
        private_dns_name=eni.private_dns_name,
        security_groups=eni.security_groups,
        vpc_cidr_blocks=eni.vpc_cidr_blocks,
    )


def _plan_ipv6(eni: EniMessage) -> tuple[IPv6Interface | None, IPv6Address | None]:
    gateway = eni.subnet_gateway_ipv6_address
    address = next((a.address for a in eni.ipv6_addresses), None)
    if address is None:
        return None, None
    prefix_length = gateway.network.prefixlen if gateway else 64
    return IPv6Interface((address, prefix_length)), gateway.ip if gateway else None


def _number_ifname(first: str, position: int) -> str:
    stem = first.rstrip("0123456789")
    return f"{stem}{int(first[len(stem) :] or 0) + position}"
