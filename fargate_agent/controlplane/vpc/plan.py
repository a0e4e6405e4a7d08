"""The VPC as data with nothing left open; pure.

As with AWS, the first four addresses of a subnet and the last one are never given.

Source: Amazon VPC user guide, "Subnet CIDR blocks".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from socket import inet_ntoa
from typing import Final

from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.vpc_settings import DEFAULT_VPC, SubnetSettings, read_vlan_ids
from fargate_agent.wire.eni_kinds import EniKind

RESERVED_ADDRESSES: Final = 4
"""At the start of a subnet."""


VPC_MTU: Final = 9001
"""Source: EC2 User Guide, "Network MTU"."""
LAN_MTU: Final = 1500
"""Of Ethernet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A subnet of the VPC."""

    id: str
    vpc_id: str = DEFAULT_VPC
    cidr: IPv4Network
    ipv6_cidr: IPv6Network | None = None
    kind: EniKind = EniKind.VETH
    parent: str | None = None
    """What a macvlan or a VLAN hangs on, or the network whose CNI plugins connect tasks."""
    nics: tuple[str, ...] = ()
    """MACs."""
    vlan_ids: range = range(0)
    gateway: IPv4Address
    gateway6: IPv6Address | None = None
    mtu: int = VPC_MTU
    """Bytes."""
    nat: bool = True
    """Whether its tasks reach other networks than the VPC."""
    dns: tuple[IPv4Address, ...] = ()
    availability_zone: str

    @property
    def gateway_interface(self) -> IPv4Interface:
        """The gateway with the subnet's prefix length."""
        return IPv4Interface((self.gateway, self.cidr.prefixlen))

    @property
    def gateway6_interface(self) -> IPv6Interface | None:
        """The IPv6 gateway with the subnet's prefix length, if there is one."""
        if self.ipv6_cidr is None or self.gateway6 is None:
            return None
        return IPv6Interface((self.gateway6, self.ipv6_cidr.prefixlen))

    @property
    def address_count(self) -> int:
        """How many addresses it can have in use."""
        return self.cidr.num_addresses - RESERVED_ADDRESSES - 1 - len(self._gateways_in_range())

    def addresses(self, after: int | None) -> Iterator[str]:
        """Give each address that a task can have, once: those behind `after` first, then round."""
        first = int(self.cidr.network_address) + RESERVED_ADDRESSES
        count = self.cidr.num_addresses - RESERVED_ADDRESSES - 1
        start = after + 1 - first if after is not None and first <= after < first + count else 0
        gateways = self._gateways_in_range()
        for step in range(count):
            number = first + (start + step) % count
            if number not in gateways:
                yield inet_ntoa(number.to_bytes(4, "big"))

    def ipv6_address(self, address: IPv4Address) -> IPv6Address | None:
        """Return the IPv6 address that goes with an IPv4 one: it has the same place in its range.

        So it is taken as long as the other one is, and by nobody else.
        """
        if self.ipv6_cidr is None:
            return None
        return self.ipv6_cidr[int(address) - int(self.cidr.network_address)]

    def _gateways_in_range(self) -> set[int]:
        """Addresses that a task would be given if they weren't a gateway's, or beside one."""
        first = int(self.cidr.network_address)
        taken = {int(self.gateway)}
        if self.ipv6_cidr is not None and self.gateway6 is not None:
            taken.add(first + int(self.gateway6) - int(self.ipv6_cidr.network_address))
        return {
            number
            for number in taken
            if first + RESERVED_ADDRESSES <= number < first + self.cidr.num_addresses - 1
        }


def plan_subnet(subnet: SubnetSettings, region: str, vpc_id: str) -> Subnet:
    """Decide what the settings leave open."""
    gateway6 = subnet.gateway6
    if gateway6 is None and subnet.ipv6_cidr is not None and subnet.kind is EniKind.VETH:
        gateway6 = subnet.ipv6_cidr[1]
    return Subnet(
        id=subnet.id,
        vpc_id=vpc_id,
        cidr=subnet.cidr,
        ipv6_cidr=subnet.ipv6_cidr,
        kind=subnet.kind,
        parent=subnet.parent or subnet.trunk or subnet.network,
        nics=subnet.nics,
        vlan_ids=read_vlan_ids(subnet.vlan_ids) if subnet.vlan_ids else range(0),
        gateway=subnet.gateway or subnet.cidr[1],
        gateway6=gateway6,
        mtu=subnet.mtu or (VPC_MTU if subnet.kind is EniKind.VETH else LAN_MTU),
        nat=subnet.nat,
        dns=subnet.dns,
        availability_zone=subnet.availability_zone or f"{region}a",
    )


def plan_subnets(settings: ControlPlaneSettings) -> dict[str, Subnet]:
    """Return every subnet of the settings by id."""
    return {
        subnet.id: plan_subnet(subnet, settings.region, settings.vpc_id)
        for subnet in settings.all_subnets
    }


def plan_cidr_blocks(
    settings: ControlPlaneSettings,
) -> tuple[list[IPv4Network], list[IPv6Network]]:
    """Return the ranges of the VPC of the settings.

    Ranges of subnets that are not in its own are ranges of it too, as it is with AWS.
    """
    blocks: list[IPv4Network] = [settings.vpc_cidr]
    ipv6_blocks: list[IPv6Network] = [settings.vpc_ipv6_cidr] if settings.vpc_ipv6_cidr else []
    for subnet in settings.all_subnets:
        if not any(subnet.cidr.subnet_of(block) for block in blocks):
            blocks.append(subnet.cidr)
        ipv6 = subnet.ipv6_cidr
        if ipv6 is not None and not any(ipv6.subnet_of(block) for block in ipv6_blocks):
            ipv6_blocks.append(ipv6)
    return blocks, ipv6_blocks
