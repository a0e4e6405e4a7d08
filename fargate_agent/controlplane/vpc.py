"""The VPC: subnets, and the ENIs that tasks are given in them.

Addresses are handed out in a circle, so that one which was just given back rests as long as it can.
As with AWS, the first four addresses of a subnet and the last one are never given.

Source: Amazon VPC user guide, "Subnet CIDR blocks".
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final, Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.model import Eni
from fargate_agent.controlplane.names import Arns, new_eni_id, new_mac, new_uuid
from fargate_agent.controlplane.settings import ControlPlaneSettings, SubnetSettings
from fargate_agent.wire.messages import EniMessage, Ipv4Assignment, MacvlanProperties

VPC_ID: Final = "vpc-default"
DEFAULT_SECURITY_GROUP: Final = "sg-default"
RESERVED_ADDRESSES: Final = 4
"""At the start of a subnet."""

MAX_SUBNETS: Final = 16
MAX_SECURITY_GROUPS: Final = 5
"""Source: ECS API, AwsVpcConfiguration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A subnet with nothing left open."""

    id: str
    cidr: IPv4Network
    kind: Literal["veth", "macvlan"]
    parent: str | None
    gateway: IPv4Address
    mtu: int
    dns: tuple[IPv4Address, ...]
    availability_zone: str

    def next_address(self, after: IPv4Address | None, taken: set[IPv4Address]) -> str | None:
        """Return the first free address behind `after`, round the end of the subnet."""
        first = int(self.cidr.network_address) + RESERVED_ADDRESSES
        count = self.cidr.num_addresses - RESERVED_ADDRESSES - 1
        start = int(after) + 1 - first if after is not None and after in self.cidr else 0
        for step in range(count):
            address = IPv4Address(first + (start + step) % count)
            if address not in taken and address != self.gateway:
                return str(address)
        return None


class Vpc:
    """The subnets and security groups there are."""

    def __init__(self, settings: ControlPlaneSettings) -> None:
        self._subnets = {
            subnet.id: _plan_subnet(subnet, settings.region) for subnet in settings.all_subnets
        }
        self._region = settings.region
        self._security_groups = {DEFAULT_SECURITY_GROUP} | {
            group.id for group in settings.security_groups
        }
        self._domain = (
            "ec2.internal"
            if settings.region == "us-east-1"
            else f"{settings.region}.compute.internal"
        )

    def check(self, subnets: Sequence[str], security_groups: Sequence[str]) -> None:
        """Return if a task can be put there.

        Raises:
            ApiError: a subnet or security group doesn't exist, or there are none, or too many.
        """
        if not subnets:
            raise invalid_parameter("subnets can not be empty.")
        if len(subnets) > MAX_SUBNETS:
            raise invalid_parameter(f"subnets can have at most {MAX_SUBNETS} items.")
        if len(security_groups) > MAX_SECURITY_GROUPS:
            raise invalid_parameter(f"securityGroups can have at most {MAX_SECURITY_GROUPS} items.")
        for subnet in subnets:
            if subnet not in self._subnets:
                raise invalid_parameter(
                    f"Error retrieving subnet information for [{subnet}]: The subnet ID "
                    f"'{subnet}' does not exist (ErrorCode: InvalidSubnetID.NotFound)"
                )
        for group in security_groups:
            if group not in self._security_groups:
                raise invalid_parameter(
                    f"Error retrieving security group information for [{group}]: The security "
                    f"group '{group}' does not exist (ErrorCode: InvalidGroup.NotFound)"
                )

    def zone(self, subnet_id: str) -> str:
        """Return the availability zone of a subnet, which may since have left the settings."""
        subnet = self._subnets.get(subnet_id)
        return subnet.availability_zone if subnet else f"{self._region}a"

    async def provision(
        self, session: AsyncSession, task_id: str, subnets: Sequence[str]
    ) -> Eni | None:
        """Return a new ENI in the first of the subnets that has room; None if all are full."""
        for subnet_id in subnets:
            subnet = self._subnets[subnet_id]
            address = await self._free_address(session, subnet)
            if address is not None:
                return Eni(
                    id=new_eni_id(),
                    attachment_id=new_uuid(),
                    task_id=task_id,
                    subnet_id=subnet_id,
                    address=address,
                    mac=new_mac(),
                    private_dns_name=f"ip-{address.replace('.', '-')}.{self._domain}",
                    created_at=time.time(),
                )
        return None

    def render_message(self, eni: Eni, arns: Arns) -> EniMessage:
        """Return the ENI as the agent is told it."""
        subnet = self._subnets[eni.subnet_id]
        return EniMessage(
            attachment_arn=arns.attachment(eni.attachment_id),
            ec2_id=eni.id,
            mac_address=eni.mac,
            ipv4_addresses=(
                Ipv4Assignment(private_address=IPv4Address(eni.address), primary=True),
            ),
            subnet_gateway_ipv4_address=IPv4Interface((subnet.gateway, subnet.cidr.prefixlen)),
            domain_name=(self._domain,),
            domain_name_servers=tuple(str(server) for server in subnet.dns),
            private_dns_name=eni.private_dns_name,
            interface_association_protocol=subnet.kind,
            interface_macvlan_properties=(
                MacvlanProperties(parent_interface=subnet.parent) if subnet.parent else None
            ),
            mtu=subnet.mtu,
        )

    @staticmethod
    async def _free_address(session: AsyncSession, subnet: Subnet) -> str | None:
        in_subnet = select(Eni.address).where(Eni.subnet_id == subnet.id)
        taken = await session.scalars(in_subnet.where(Eni.in_use))
        newest = await session.scalar(in_subnet.order_by(Eni.created_at.desc()).limit(1))
        return subnet.next_address(
            IPv4Address(newest) if newest else None, {IPv4Address(address) for address in taken}
        )


def _plan_subnet(subnet: SubnetSettings, region: str) -> Subnet:
    return Subnet(
        id=subnet.id,
        cidr=subnet.cidr,
        kind=subnet.kind,
        parent=subnet.parent,
        gateway=subnet.gateway or subnet.cidr.network_address + 1,
        mtu=subnet.mtu,
        dns=subnet.dns,
        availability_zone=subnet.availability_zone or f"{region}a",
    )
