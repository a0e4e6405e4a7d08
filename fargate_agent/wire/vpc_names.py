"""The names of private namespaces, as the control plane tells agents of them. Not in ACS: ours."""

from typing import Annotated, Literal

from pydantic import Field

from fargate_agent.wire.message import Message


class NameRecord(Message):
    """The values of one name and type."""

    name: Annotated[str, Field(max_length=253)]
    """In lower case, without a dot at its end."""
    type: Literal["A", "AAAA", "SRV", "CNAME"]
    ttl_s: Annotated[int, Field(ge=0, le=2**31 - 1)]
    values: tuple[str, ...]


class PrivateZone(Message):
    """A private namespace."""

    name: str
    records: tuple[NameRecord, ...] = ()


class VpcZones(Message):
    """The private namespaces of a VPC."""

    vpc_id: str
    zones: tuple[PrivateZone, ...] = ()
