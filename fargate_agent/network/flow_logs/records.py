"""The lines of flow logs, as version 2 of AWS's format has them; pure.

Source: Amazon VPC user guide, "Flow log records": fields of version 2, and "-" for what is not
applicable or could not be computed.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from fargate_agent.plan import EniPlan

VERSION: Final = 2
UNKNOWN_PORT: Final = -1
"""Of a packet whose headers were too long to find it."""

Address = IPv4Address | IPv6Address


class Action(StrEnum):
    """What was done with packets."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"


class Way(NamedTuple):
    """Where packets come from and go to. Addresses are as they stand in a packet."""

    source: bytes
    destination: bytes
    source_port: int
    """0 where the protocol has none."""
    destination_port: int
    protocol: int

    def back(self) -> "Way":
        """Return the way of the answers."""
        return Way(
            self.destination,
            self.source,
            self.destination_port,
            self.source_port,
            self.protocol,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEni:
    """An ENI as its records name it."""

    id: str
    account: str
    addresses: tuple[bytes, ...]
    """As they stand in packets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line, and when what it tells of began."""

    start_s: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The records of one ENI and one interval, in the order of their beginnings."""

    eni_id: str
    records: tuple[Record, ...]


def plan_logged(eni: EniPlan) -> LoggedEni:
    """Return what of an ENI its records need. The account is that of its attachment's ARN."""
    addresses = [eni.address.ip.packed]
    if eni.ipv6_address is not None:
        addresses.append(eni.ipv6_address.ip.packed)
    fields = eni.attachment_arn.split(":")
    account = fields[4] if len(fields) > 5 and fields[4] else "-"
    return LoggedEni(id=eni.id, account=account, addresses=tuple(addresses))


@dataclass(slots=True)
class Sums:
    """What went one way in one interval."""

    packets: int = 0
    bytes: int = 0
    start_s: float = 0.0
    end_s: float = 0.0

    def add(self, packets: int, bytes_: int, start_s: float, end_s: float) -> None:
        """Add packets that passed between two times."""
        self.start_s = min(self.start_s, start_s) if self.packets else start_s
        self.end_s = max(self.end_s, end_s)
        self.packets += packets
        self.bytes += bytes_


def render_record(eni: LoggedEni, way: Way, sums: Sums, action: Action) -> Record:
    """Return the record of what went one way."""
    start_s = int(sums.start_s)
    fields = (
        VERSION,
        eni.account,
        eni.id,
        ip_address(way.source),
        ip_address(way.destination),
        _render_port(way.source_port),
        _render_port(way.destination_port),
        way.protocol,
        sums.packets,
        sums.bytes,
        start_s,
        max(int(sums.end_s), start_s),
        action,
        "OK",
    )
    return Record(start_s=start_s, text=" ".join(map(str, fields)))


def render_nothing(eni: LoggedEni, status: str, start_s: float, end_s: float) -> Record:
    """Return the record of an interval of which nothing is told: `NODATA` or `SKIPDATA`."""
    times = f"{int(start_s)} {int(end_s)}"
    text = f"{VERSION} {eni.account} {eni.id} - - - - - - - {times} - {status}"
    return Record(start_s=int(start_s), text=text)


def _render_port(port: int) -> str:
    return "-" if port == UNKNOWN_PORT else str(port)
