"""Where tasks can be put, and the ENI that each of them gets."""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.names import Arns, new_eni_id, new_uuid
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.model import Eni, EniGroup
from fargate_agent.controlplane.state.networks import GroupRow, SubnetRow, VpcRow
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import note_members
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc.addresses import take_addresses
from fargate_agent.controlplane.vpc.plan import Subnet, plan_cidr_blocks, plan_subnets
from fargate_agent.controlplane.vpc.ports import Port, take_ports
from fargate_agent.controlplane.vpc_settings import (
    DEFAULT_SECURITY_GROUP,
    MAC,
    read_vlan_ids,
)
from fargate_agent.wire.eni_kinds import EniKind
from fargate_agent.wire.messages import (
    CniProperties,
    EniMessage,
    Ipv4Assignment,
    Ipv6Assignment,
    MacvlanProperties,
    VlanProperties,
)

MAX_SUBNETS: Final = 16
MAX_SECURITY_GROUPS: Final = 5
"""Source: ECS API, AwsVpcConfiguration."""


Cidr = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a VPC is, as far as its ENIs are told."""

    cidr_blocks: tuple[Cidr, ...]
    """Without subnets whose interfaces hang on a network that agents don't route to."""
    default_group: str
    """Of ENIs that name no security group."""


class Vpc:
    """Subnets and security groups, as they are in one transaction."""

    def __init__(
        self,
        region: str,
        vpcs: Mapping[str, Range],
        subnets: Mapping[str, Subnet],
        security_groups: Mapping[str, str],
    ) -> None:
        """All by id; of a security group its VPC."""
        self.vpcs = vpcs
        self.subnets = subnets
        self.security_groups = security_groups
        self._domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"

    def check(self, subnets: Sequence[str], security_groups: Sequence[str]) -> None:
        """Return if a task can be put there.

        Raises:
            ApiError: a subnet or security group doesn't exist, or there are none, or too many.
        """
        _check_counts(subnets, security_groups)
        for subnet in subnets:
            if subnet not in self.subnets:
                raise invalid_parameter(
                    f"Error retrieving subnet information for [{subnet}]: The subnet ID "
                    f"'{subnet}' does not exist (ErrorCode: InvalidSubnetID.NotFound)"
                )
        for group in security_groups:
            if group not in self.security_groups:
                raise invalid_parameter(
                    f"Error retrieving security group information for [{group}]: The security "
                    f"group '{group}' does not exist (ErrorCode: InvalidGroup.NotFound)"
                )
        self._check_same_vpc(subnets, security_groups)

    def _check_same_vpc(self, subnets: Sequence[str], security_groups: Sequence[str]) -> None:
        vpcs = {self.subnets[subnet].vpc_id for subnet in subnets}
        if len(vpcs) > 1:  # text unverified
            raise invalid_parameter("The subnets must all be of the same VPC.")
        for group in security_groups:
            if self.security_groups[group] not in vpcs:  # text unverified
                raise invalid_parameter(
                    f"The security group '{group}' and the subnet '{subnets[0]}' belong to "
                    "different VPCs."
                )

    async def provision(
        self,
        session: Session,
        count: int,
        subnet_id: str,
        security_groups: Sequence[str] = (),
    ) -> list[Eni]:
        """Return so many new ENIs in a subnet, or fewer if it has no more addresses or VLANs.

        Of kind `nic` it is one for each NIC that is free: not every agent with a NIC has room.
        Without security groups they get the default one. The caller gives each that it wants a
        task, and stores it, before the transaction ends.
        """
        subnet = self.subnets[subnet_id]
        default = self.vpcs[subnet.vpc_id].default_group
        groups = list(dict.fromkeys(security_groups)) or [default]
        ports = await take_ports(session, subnet, count)
        addresses = await take_addresses(session, subnet, len(ports))
        note_members(session, groups)
        return [
            self._render_eni(subnet, address, port, groups)
            for address, port in zip(addresses, ports, strict=False)
        ]

    def _render_eni(
        self, subnet: Subnet, address: IPv4Address, port: Port, groups: list[str]
    ) -> Eni:
        ipv6_address = subnet.ipv6_address(address)
        return Eni(
            id=new_eni_id(),
            attachment_id=new_uuid(),
            subnet_id=subnet.id,
            address=str(address),
            ipv6_address=None if ipv6_address is None else str(ipv6_address),
            security_groups=groups,
            mac=port.mac,
            vlan_id=port.vlan_id,
            private_dns_name=f"ip-{str(address).replace('.', '-')}.{self._domain}",
            status="PRECREATED",
            in_use=True,
            vpc_id=subnet.vpc_id,
            availability_zone=subnet.availability_zone,
            created_at=time.time(),
            groups=[EniGroup(group_id=group) for group in groups],
        )

    def render_message(self, eni: Eni, arns: Arns) -> EniMessage:
        """Return the ENI as the agent is told it."""
        subnet = self.subnets[eni.subnet_id]
        ipv6_address = eni.ipv6_address
        return EniMessage(
            attachment_arn=arns.attachment(eni.attachment_id),
            ec2_id=eni.id,
            mac_address=eni.mac,
            ipv4_addresses=(
                Ipv4Assignment(private_address=IPv4Address(eni.address), primary=True),
            ),
            ipv6_addresses=(
                ()
                if ipv6_address is None
                else (Ipv6Assignment(address=IPv6Address(ipv6_address), primary=True),)
            ),
            subnet_gateway_ipv4_address=subnet.gateway_interface,
            subnet_gateway_ipv6_address=subnet.gateway6_interface,
            domain_name=(self._domain,),
            domain_name_servers=tuple(str(server) for server in subnet.dns),
            private_dns_name=eni.private_dns_name,
            interface_association_protocol=subnet.kind,
            interface_macvlan_properties=(
                MacvlanProperties(parent_interface=subnet.parent)
                if subnet.parent and subnet.kind is EniKind.MACVLAN
                else None
            ),
            interface_cni_properties=(
                CniProperties(network=subnet.parent)
                if subnet.parent and subnet.kind is EniKind.CNI
                else None
            ),
            interface_vlan_properties=_render_vlan(eni, subnet),
            mtu=subnet.mtu,
            security_groups=tuple(eni.security_groups),
            vpc_cidr_blocks=self.vpcs[subnet.vpc_id].cidr_blocks,
            nat=subnet.nat,
        )


def _render_vlan(eni: Eni, subnet: Subnet) -> VlanProperties | None:
    if eni.vlan_id is None or subnet.parent is None:
        return None
    is_mac = re.fullmatch(MAC, subnet.parent) is not None
    return VlanProperties(
        vlan_id=str(eni.vlan_id),
        trunk_interface_mac_address=subnet.parent if is_mac else None,
        trunk_interface=None if is_mac else subnet.parent,
    )


def _check_counts(subnets: Sequence[str], security_groups: Sequence[str]) -> None:
    if not subnets:
        raise invalid_parameter("subnets can not be empty.")
    if len(subnets) > MAX_SUBNETS:
        raise invalid_parameter(f"subnets can have at most {MAX_SUBNETS} items.")
    if len(security_groups) > MAX_SECURITY_GROUPS:
        raise invalid_parameter(f"securityGroups can have at most {MAX_SECURITY_GROUPS} items.")


def plan_vpc(settings: ControlPlaneSettings) -> Vpc:
    """Return what the settings say; a store may say more."""
    blocks, ipv6_blocks = plan_cidr_blocks(settings)
    subnets = plan_subnets(settings)
    elsewhere = {
        cidr
        for subnet in subnets.values()
        if subnet.kind is not EniKind.VETH
        for cidr in (subnet.cidr, subnet.ipv6_cidr)
    }
    everything: list[Cidr] = [*blocks, *ipv6_blocks]
    whole = Range(
        cidr_blocks=tuple(one for one in everything if one not in elsewhere),
        default_group=DEFAULT_SECURITY_GROUP,
    )
    groups = {group.id: settings.vpc_id for group in settings.all_security_groups}
    return Vpc(settings.region, {settings.vpc_id: whole}, subnets, groups)


async def read_vpc(
    session: Session, region: str, subnet_ids: Collection[str], group_ids: Collection[str]
) -> Vpc:
    """Return those of the subnets and security groups that there are, with the subnets' VPCs."""
    chosen = (
        select(SubnetRow, VpcRow)
        .join(VpcRow, VpcRow.id == SubnetRow.vpc_id)
        .where(SubnetRow.id.in_(subnet_ids))
    )
    rows = (await session.execute(chosen)).all()
    elsewhere = select(SubnetRow.cidr, SubnetRow.ipv6_cidr).where(
        SubnetRow.vpc_id.in_([vpc.id for _, vpc in rows]), SubnetRow.kind != EniKind.VETH
    )
    others = {cidr for pair in (await session.execute(elsewhere)).all() for cidr in pair}
    groups = select(GroupRow.id, GroupRow.vpc_id).where(GroupRow.id.in_(group_ids))
    return Vpc(
        region,
        {vpc.id: _read_range(vpc, others) for _, vpc in rows},
        {row.id: plan_row(row) for row, _ in rows},
        dict((await session.execute(groups)).all()) if group_ids else {},
    )


async def read_vpc_of(session: Session, region: str, request: Json) -> Vpc:
    """Return what a request of RunTask names, as far as it is there."""
    network = request.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
    return await read_vpc(
        session, region, network.get("subnets", ()), network.get("securityGroups", ())
    )


def plan_row(row: SubnetRow) -> Subnet:
    """Return a subnet as it is kept."""
    return Subnet(
        id=row.id,
        vpc_id=row.vpc_id,
        cidr=IPv4Network(row.cidr),
        ipv6_cidr=None if row.ipv6_cidr is None else IPv6Network(row.ipv6_cidr),
        kind=EniKind(row.kind),
        parent=row.parent,
        nics=tuple(row.nics or ()),
        vlan_ids=read_vlan_ids(row.vlan_ids) if row.vlan_ids else range(0),
        gateway=IPv4Address(row.gateway),
        gateway6=None if row.gateway6 is None else IPv6Address(row.gateway6),
        mtu=row.mtu,
        nat=row.nat,
        dns=tuple(IPv4Address(server) for server in row.dns),
        availability_zone=row.availability_zone,
    )


def _read_range(row: VpcRow, elsewhere: Collection[str | None]) -> Range:
    """Return what ENIs are told of a VPC; `elsewhere` are subnets that agents don't route to."""
    blocks = [*row.cidr_blocks, *row.ipv6_cidr_blocks]
    return Range(
        cidr_blocks=tuple(ip_network(one) for one in blocks if one not in elsewhere),
        default_group=row.default_group,
    )
