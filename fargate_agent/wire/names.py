"""Names of a VPC's private zones as the control plane tells an agent of them. Not in ACS: ours.

What a zone has no record of doesn't exist: its names are never looked for outside of the VPC.
"""

from typing import Annotated, Literal

from pydantic import Field

from fargate_agent.wire.message import Message


class NameRecord(Message):
    """The values of one type that a name has."""

    name: str
    """In full, in lower case, without a dot at the end: `web.local`."""
    type: Literal["A", "AAAA", "CNAME", "SRV"]
    ttl_s: Annotated[int, Field(ge=0, le=2**31 - 1)]
    """Source: RFC 2181, 8."""
    values: tuple[str, ...]
    """As in a zone's file: `10.0.0.5`; of SRV `1 1 8080 <target>`."""
    most_answers: Annotated[int, Field(ge=1)] = 8
    """How many of the values one answer has. Source: Cloud Map API, DnsConfig, `RoutingPolicy`."""


class PrivateZone(Message):
    """A namespace of Cloud Map: all names that end with its own."""

    name: str
    records: tuple[NameRecord, ...] = ()
    negative_ttl_s: Annotated[int, Field(ge=0, le=2**31 - 1)] = 15
    """How long may be remembered that there is no such name."""


class VpcZones(Message):
    """The private zones of one VPC."""

    vpc_id: str
    zones: tuple[PrivateZone, ...] = ()
