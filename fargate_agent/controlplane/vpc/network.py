"""Where tasks can be put, and the ENI that each of them gets."""

import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.names import Arns, new_eni_id, new_mac, new_uuid
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.model import Eni
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.vpc.addresses import take_addresses
from fargate_agent.controlplane.vpc.plan import (
    SecurityGroup,
    Subnet,
    plan_security_groups,
    plan_subnets,
)
from fargate_agent.controlplane.vpc_settings import DEFAULT_SECURITY_GROUP
from fargate_agent.wire.messages import (
    EniMessage,
    Ipv4Assignment,
    Ipv6Assignment,
    MacvlanProperties,
)

MAX_SUBNETS: Final = 16
MAX_SECURITY_GROUPS: Final = 5
"""Source: ECS API, AwsVpcConfiguration."""


class Vpc:
    """The subnets and security groups there are."""

    def __init__(self, settings: ControlPlaneSettings) -> None:
        self.id = settings.vpc_id
        self.subnets: Mapping[str, Subnet] = plan_subnets(settings)
        self.security_groups: Mapping[str, SecurityGroup] = plan_security_groups(settings)
        """By id."""
        self._region = settings.region
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

    def zone(self, subnet_id: str) -> str:
        """Return the availability zone of a subnet, which may since have left the settings."""
        subnet = self.subnets.get(subnet_id)
        return subnet.availability_zone if subnet else f"{self._region}a"

    async def provision(
        self,
        session: Session,
        count: int,
        subnet_id: str,
        security_groups: Sequence[str] = (),
    ) -> list[Eni]:
        """Return so many new ENIs in a subnet, or fewer if it has no more addresses.

        Without security groups they get the default one. The caller gives each that it wants a
        task, and stores it, before the transaction ends.
        """
        subnet = self.subnets[subnet_id]
        groups = list(dict.fromkeys(security_groups)) or [DEFAULT_SECURITY_GROUP]
        addresses = await take_addresses(session, subnet, count)
        return [self._render_eni(subnet, address, groups) for address in addresses]

    def _render_eni(self, subnet: Subnet, address: IPv4Address, groups: list[str]) -> Eni:
        ipv6_address = subnet.ipv6_address(address)
        return Eni(
            id=new_eni_id(),
            attachment_id=new_uuid(),
            subnet_id=subnet.id,
            address=str(address),
            ipv6_address=None if ipv6_address is None else str(ipv6_address),
            security_groups=groups,
            mac=new_mac(),
            private_dns_name=f"ip-{str(address).replace('.', '-')}.{self._domain}",
            status="PRECREATED",
            in_use=True,
            created_at=time.time(),
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
                MacvlanProperties(parent_interface=subnet.parent) if subnet.parent else None
            ),
            mtu=subnet.mtu,
        )
