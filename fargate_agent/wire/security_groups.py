"""Security groups as the control plane tells an agent of them. Not in ACS: ours.

A rule allows; what no rule of any group of an ENI allows is dropped. Answers of what was allowed
always pass.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from fargate_agent.wire.message import Message

ALL_PROTOCOLS: Final = "-1"
"""Source: EC2 API, IpPermission, `IpProtocol`."""

MAX_BYTE: Final = 255
"""Protocols, and types and codes of ICMP, are one byte. Source: RFC 791, RFC 792."""

Port = Annotated[int, Field(ge=-1, le=65535)]
GroupId = Annotated[str, Field(pattern=r"^sg-[a-z0-9-]{1,64}$")]
"""It is a part of names in the packet filter, which have room for 255 characters."""

_OF_ICMP: Final = frozenset({"icmp", "icmpv6", "1", "58"})


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
    groups: tuple[GroupId, ...] = ()
    """Security groups whose members are sources or destinations."""

    @model_validator(mode="after")
    def _refuse_more_than_a_byte(self) -> Self:
        if self.protocol.isdigit() and int(self.protocol) > MAX_BYTE:
            raise ValueError(f"protocol {self.protocol} is more than {MAX_BYTE}")
        if self.protocol.lstrip("0") in _OF_ICMP and max(self.from_port, self.to_port) > MAX_BYTE:
            raise ValueError(f"type or code of {self.protocol} is more than {MAX_BYTE}")
        return self


class SecurityGroupMessage(Message):
    """One security group."""

    id: GroupId
    ingress: tuple[SecurityGroupRule, ...] = ()
    egress: tuple[SecurityGroupRule, ...] = ()
    members: tuple[IPv4Address | IPv6Address, ...] = ()
    """Addresses of the ENIs in the group that other agents have attached. An agent knows its own.
    """
