"""From the ENIs of a message to those of a plan; pure."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan.model import EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from fargate_agent.wire.messages import EniMessage

MAX_VLAN_ID: Final = 4094
"""Source: IEEE 802.1Q, 9.6."""

_ON_THE_HOST: Final = frozenset({"", "default"})
"""How ACS calls an interface of the host. Source: amazon-ecs-agent, ecs-agent, `ValidateENI`."""


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
    """Return ENIs with the security groups that messages about them say, if they say any."""
    groups = _read_groups(messages)
    return tuple(
        replace(eni, security_groups=groups.get(eni.id, eni.security_groups)) for eni in enis
    )


def _read_groups(messages: Iterable[EniMessage]) -> dict[str, tuple[str, ...]]:
    return {
        message.ec2_id: message.security_groups
        for message in messages
        if message.security_groups is not None
    }


def change_messages(
    messages: Iterable[EniMessage], newer: Iterable[EniMessage]
) -> tuple[EniMessage, ...]:
    """Return messages about ENIs with the security groups of newer ones."""
    groups = _read_groups(newer)
    return tuple(
        message.model_copy(
            update={"security_groups": groups.get(message.ec2_id, message.security_groups)}
        )
        for message in messages
    )


def _plan_eni(position: int, eni: EniMessage, first_ifname: str) -> EniPlan:
    kind = _plan_kind(eni)
    parent, vlan_id = _plan_parent(eni, kind)
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
        parent=parent,
        vlan_id=vlan_id,
        cni_network=_plan_network(eni, kind),
        primary=position == 0,
        private_dns_name=eni.private_dns_name,
        security_groups=eni.security_groups,
        vpc_cidr_blocks=eni.vpc_cidr_blocks,
        nat=eni.nat,
    )


def _plan_kind(eni: EniMessage) -> EniKind:
    protocol = eni.interface_association_protocol
    kind = EniKind.NIC if protocol in _ON_THE_HOST else protocol
    if kind not in set(EniKind):
        raise ResourceInitializationError(
            f"ENI {eni.ec2_id}: an interface of kind '{protocol}' is not supported here"
        )
    if not eni.nat and kind != EniKind.VETH:
        raise ResourceInitializationError(
            f"ENI {eni.ec2_id}: an interface of kind '{kind}' can't be private"
        )
    return EniKind(kind)


def _plan_parent(eni: EniMessage, kind: EniKind) -> tuple[str | None, int | None]:
    """Return the NIC that the ENI hangs on, and the number of its VLAN there."""
    if kind is EniKind.MACVLAN:
        macvlan = eni.interface_macvlan_properties
        if macvlan is None:
            raise ResourceInitializationError(
                f"ENI {eni.ec2_id}: macvlan without a parent interface"
            )
        return macvlan.parent_interface, None
    if kind is not EniKind.VLAN:
        return None, None
    vlan = eni.interface_vlan_properties
    trunk = None if vlan is None else vlan.trunk_interface_mac_address or vlan.trunk_interface
    if vlan is None or trunk is None:
        raise ResourceInitializationError(f"ENI {eni.ec2_id}: vlan without a trunk interface")
    if not 1 <= int(vlan.vlan_id) <= MAX_VLAN_ID:
        raise ResourceInitializationError(
            f"ENI {eni.ec2_id}: VLAN id {vlan.vlan_id} is not between 1 and {MAX_VLAN_ID}"
        )
    return trunk, int(vlan.vlan_id)


def _plan_network(eni: EniMessage, kind: EniKind) -> str | None:
    """Return the network whose CNI plugins make the ENI."""
    if kind is not EniKind.CNI:
        return None
    if eni.interface_cni_properties is None:
        raise ResourceInitializationError(f"ENI {eni.ec2_id}: cni without a network")
    return eni.interface_cni_properties.network


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
