"""Security groups as the control plane tells an agent of them. Not in ACS: ours.

A rule allows; what no rule of any group of an ENI allows is dropped. Answers of what was allowed
always pass.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Final

from pydantic import Field

from fargate_agent.wire.message import Message

ALL_PROTOCOLS: Final = "-1"
"""Source: EC2 API, IpPermission, `IpProtocol`."""

Port = Annotated[int, Field(ge=-1, le=65535)]


class SecurityGroupRule(Message):
    """What one rule allows."""

    protocol: Annotated[str, Field(pattern=r"^(tcp|udp|icmp|icmpv6|-1|[0-9]{1,3})$")]
    """A name, a protocol number, or `-1` for all of them."""
    from_port: Port = -1
    """First port of TCP and UDP; of ICMP the type, and -1 is all."""
    to_port: Port = -1
    """Last port of TCP and UDP; of ICMP the code, and -1 is all."""
    cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    """Sources of ingress, destinations of egress. Those of a prefix list stand here too."""
    groups: tuple[str, ...] = ()
    """Security groups whose members are sources or destinations."""


class SecurityGroupMessage(Message):
    """One security group."""

    id: str
    ingress: tuple[SecurityGroupRule, ...] = ()
    egress: tuple[SecurityGroupRule, ...] = ()
    members: tuple[IPv4Address | IPv6Address, ...] = ()
    """Addresses of the ENIs in the group that other agents have attached. An agent knows its own.
    """
