"""What the resolver of a VPC answers by itself: its own names, and those of private zones. Pure.

Every address of a VPC has a private DNS name, `ip-10-0-0-5.ec2.internal`, which says the address
itself, and the reverse. Private zones are told by the control plane.
Source: Amazon VPC User Guide, "DNS attributes for your VPC".
"""

import logging
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Final

import dns.exception
import dns.name
import dns.rdatatype
import dns.reversename
import dns.rrset
from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from dns.rrset import RRset

from fargate_agent.plan import TaskPlan
from fargate_agent.plan.names import RecordPlan, ZonePlan

log = logging.getLogger(__name__)

OWN_NAME_TTL_S: Final = 60
NEGATIVE_TTL_S: Final = 15
"""How long may be remembered that there is no such name. Source: Cloud Map API, `SOA`, `TTL`."""
MAX_ALIASES: Final = 8
MAX_LOGGED: Final = 10
"""How many records that can't be read are named, of one message."""

_OWN_NAME: Final = re.compile(rb"ip-(\d{1,3})-(\d{1,3})-(\d{1,3})-(\d{1,3})", re.IGNORECASE)
_REVERSE: Final = dns.name.from_text("in-addr.arpa.")

Records = Mapping[Name, Mapping[RdataType, tuple[RRset, int]]]
"""By name and type, with how many values one answer has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks: a task, as far as it decides about answers."""

    task_id: str
    vpc_id: str
    ranges: tuple[IPv4Network | IPv6Network, ...]
    domain: Name | None
    """What private DNS names of its VPC end with."""

    @classmethod
    def of(cls, task: TaskPlan) -> "Asker":
        """Return it for a task."""
        eni = task.enis[0]
        _, _, domain = (eni.private_dns_name or "").partition(".")
        try:
            name = dns.name.from_text(domain) if domain else None
        except dns.exception.DNSException:
            name = None
        # A subnet whose interfaces hang on a network of their own is in no range.
        ranges = (*eni.vpc_cidr_blocks, eni.address.network)
        return cls(task_id=task.id, vpc_id=task.vpc_id or "", ranges=ranges, domain=name)


@dataclass(slots=True, kw_only=True)
class LocalAnswer:
    """What is known here of a name."""

    rcode: Rcode = Rcode.NOERROR
    answer: list[RRset] = field(default_factory=list)
    authority: list[RRset] = field(default_factory=list)
    goes_on: Name | None = None
    """The alias leads to this name, which has to be asked for elsewhere."""


@dataclass(frozen=True, slots=True)
class _Zone:
    origin: Name
    records: Records
    negative_ttl_s: int
    between: frozenset[Name]
    """Names that have no record, and stand above one that has."""


class Zones:
    """The private zones of all VPCs, as they were told last."""

    def __init__(self) -> None:
        """Know none."""
        self._zones: dict[str, dict[Name, _Zone]] = {}

    def learn(self, zones: Iterable[ZonePlan]) -> None:
        """Replace all that was known. A record that can't be read is left out, and logged.

        Blocks: ten thousand records take half a second. Others may ask meanwhile.
        """
        faults: list[str] = []
        known: dict[str, dict[Name, _Zone]] = {}
        for plan in zones:
            zone = _read_zone(plan, faults)
            if zone is not None:
                known.setdefault(plan.vpc_id, {})[zone.origin] = zone
        self._zones = known
        if faults:
            log.error(
                "%d records of private zones are left out: %s",
                len(faults),
                "; ".join(faults[:MAX_LOGGED]),
            )

    def find(self, asker: Asker, name: Name, kind: RdataType) -> LocalAnswer | None:
        """Answer; None if the name is none of the VPC's."""
        found, asked = LocalAnswer(), name
        for _ in range(MAX_ALIASES):
            zone = self._find_zone(asker.vpc_id, asked)
            if zone is None:
                break
            alias = _answer_from(zone, asked, kind, found)
            if alias is None:
                return found
            asked = alias
        else:
            return LocalAnswer(rcode=Rcode.SERVFAIL)
        own = _find_own_name(asker, asked, kind)
        if own is None:
            if asked == name:
                return None
            found.goes_on = asked
            return found
        own.answer = found.answer + own.answer
        return own

    def _find_zone(self, vpc_id: str, name: Name) -> _Zone | None:
        """Return the zone that a name is in, the narrowest one."""
        zones = self._zones.get(vpc_id, {})
        while name != dns.name.root:
            if name in zones:
                return zones[name]
            name = name.parent()
        return None


def _read_zone(plan: ZonePlan, faults: list[str]) -> _Zone | None:
    try:
        origin = dns.name.from_text(plan.name)
    except dns.exception.DNSException as error:
        faults.append(f"zone {plan.name!r}: {error}")
        return None
    records: dict[Name, dict[RdataType, tuple[RRset, int]]] = {}
    for record in plan.records:
        try:
            rrset = _read_record(record)
            if not rrset.name.is_subdomain(origin):
                raise ValueError(f"not in zone {plan.name}")
        except (dns.exception.DNSException, ValueError) as error:
            faults.append(f"{record.name!r}: {error}")
            continue
        records.setdefault(rrset.name, {})[rrset.rdtype] = rrset, record.most_answers
    between = set[Name]()
    for name in records:
        while name not in {origin, dns.name.root}:
            name = name.parent()
            between.add(name)
    return _Zone(origin, records, plan.negative_ttl_s, frozenset(between | {origin}))


def _read_record(record: RecordPlan) -> RRset:
    kind = dns.rdatatype.from_text(record.type)
    values = record.values
    if not values:
        raise ValueError("it has no values")
    if kind in {RdataType.SRV, RdataType.CNAME}:  # their last word is a name, in full
        values = tuple(f"{value.rstrip('.')}." for value in values)
    name = dns.name.from_text(record.name)
    return dns.rrset.from_text_list(name, record.ttl_s, "IN", kind, list(values))


def _answer_from(zone: _Zone, name: Name, kind: RdataType, found: LocalAnswer) -> Name | None:
    """Add what a zone says of a name; return the name that an alias leads to."""
    records = zone.records.get(name, {})
    wanted = [one for its, one in records.items() if kind in {its, RdataType.ANY}]
    if wanted:
        found.answer += [_choose(rrset, most) for rrset, most in wanted]
        return None
    if RdataType.CNAME in records:
        alias, _ = records[RdataType.CNAME]
        found.answer.append(alias)
        return Name(alias[0].target.labels)
    if not records and name not in zone.between:
        found.rcode = Rcode.NXDOMAIN
    found.authority.append(_render_soa(zone.origin, zone.negative_ttl_s))
    return None


def _choose(rrset: RRset, most: int) -> RRset:
    """Take some values in any order, so that those who take the first one are spread."""
    values = list(rrset)
    return dns.rrset.from_rdata_list(
        rrset.name, rrset.ttl, random.sample(values, min(most, len(values)))
    )


def _render_soa(origin: Name, ttl_s: int = NEGATIVE_TTL_S) -> RRset:
    """Say how long it may be remembered that there is nothing. Source: RFC 2308, 3 and 5.

    Names in it are no longer than the zone's own, which may be as long as names can be.
    """
    text = f"{origin} {origin} 1 7200 900 1209600 {ttl_s}"
    return dns.rrset.from_text(origin, ttl_s, "IN", "SOA", text)


def _find_own_name(asker: Asker, name: Name, kind: RdataType) -> LocalAnswer | None:
    """Answer about the private DNS name of an address, and the reverse; None: it is neither."""
    if asker.domain is None:
        return None
    reverse = _read_reverse(name)
    if reverse is not None and _is_in(asker, reverse):
        target = f"ip-{str(reverse).replace('.', '-')}.{asker.domain}"
        return _answer_one(name, kind, RdataType.PTR, target)
    if not name.is_subdomain(asker.domain):
        return None
    address = _read_own_name(name, asker.domain)
    if address is not None and _is_in(asker, address):
        return _answer_one(name, kind, RdataType.A, str(address))
    soa = [_render_soa(asker.domain)]
    rcode = Rcode.NOERROR if name == asker.domain else Rcode.NXDOMAIN
    return LocalAnswer(rcode=rcode, authority=soa)


def _answer_one(name: Name, asked: RdataType, kind: RdataType, value: str) -> LocalAnswer:
    if asked in {kind, RdataType.ANY}:
        return LocalAnswer(answer=[dns.rrset.from_text(name, OWN_NAME_TTL_S, "IN", kind, value)])
    return LocalAnswer(authority=[_render_soa(name.parent())])


def _is_in(asker: Asker, address: IPv4Address) -> bool:
    return any(address in one for one in asker.ranges)


def _read_own_name(name: Name, domain: Name) -> IPv4Address | None:
    if len(name) != len(domain) + 1:
        return None
    match = _OWN_NAME.fullmatch(name[0])
    if match is None:
        return None
    try:
        return IPv4Address(b".".join(match.groups()).decode())
    except ValueError:
        return None


def _read_reverse(name: Name) -> IPv4Address | None:
    if not name.is_subdomain(_REVERSE):
        return None
    try:
        address = ip_address(dns.reversename.to_address(name))
    except (dns.exception.DNSException, ValueError):
        return None
    return address if isinstance(address, IPv4Address) else None
