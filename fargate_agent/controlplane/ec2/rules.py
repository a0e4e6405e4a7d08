"""Rules of security groups as requests write them: read, checked, and made alike; pure.

Source of codes and limits: EC2 API reference, "Error codes", `IpPermission`; Amazon VPC user guide,
"Amazon VPC quotas". Source of texts: answers of EC2 that users have published.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from fargate_agent.controlplane.ec2.changes import invalid_value, missing
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.state.networks import RuleRow
from fargate_agent.controlplane.validate import Json

MAX_RULES: Final = 60
"""Of one direction, for IPv4 and for IPv6 each; one for a group counts for both."""
MAX_PORT: Final = 65535
MAX_ICMP: Final = 255
MAX_PROTOCOL: Final = 255
MAX_DESCRIPTION_CHARS: Final = 255

_PROTOCOLS: Final = {
    "all": "-1",
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "58": "icmpv6",
}
_SOURCES: Final = (
    ("IpRanges", "CidrIp"),
    ("Ipv6Ranges", "CidrIpv6"),
    ("PrefixListIds", "PrefixListId"),
    ("UserIdGroupPairs", "GroupId"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one rule allows, and to or from whom."""

    protocol: str
    from_port: int
    to_port: int
    cidr: str | None = None
    source_group: str | None = None
    prefix_list: str | None = None
    description: str | None = None

    @property
    def key(self) -> "Rule":
        """What makes it this rule: all but the description."""
        return replace(self, description=None)

    def __str__(self) -> str:
        """Write it as EC2's errors do."""
        peer = self.cidr or self.source_group or self.prefix_list
        protocol = "ALL" if self.protocol == "-1" else self.protocol.upper()
        ports = ""
        if self.protocol in {"tcp", "udp"}:
            ports = f", from port: {self.from_port}, to port: {self.to_port}"
        elif self.protocol in {"icmp", "icmpv6"}:
            ports = f", type: {self.from_port}, code: {self.to_port}"
        return f'"peer: {peer}, {protocol}{ports}, ALLOW"'


def read_rule(row: RuleRow) -> Rule:
    """Return a rule as it is kept."""
    return Rule(
        protocol=row.protocol,
        from_port=row.from_port,
        to_port=row.to_port,
        cidr=row.cidr,
        source_group=row.source_group,
        prefix_list=row.prefix_list,
        description=row.description,
    )


def parse_permissions(request: Json) -> list[Rule]:
    """Return the rules that a request to authorize, revoke or describe some means.

    Raises:
        ApiError: one can't be, or is there twice.
    """
    permissions = request.get("IpPermissions") or _of_one(request)
    rules = [rule for permission in permissions for rule in _parse_permission(permission)]
    if len({rule.key for rule in rules}) < len(rules):
        raise invalid_value("The same permission must not appear multiple times")
    return rules


def parse_rule(request: Json) -> Rule:
    """Return the rule that ModifySecurityGroupRules puts in another's place.

    Raises:
        ApiError: it can't be.
    """
    permission: Json = {
        member: request[member]
        for member in ("IpProtocol", "FromPort", "ToPort")
        if member in request
    }
    described = {"Description": request["Description"]} if "Description" in request else {}
    for member, source, written in (
        ("IpRanges", "CidrIp", "CidrIpv4"),
        ("Ipv6Ranges", "CidrIpv6", "CidrIpv6"),
        ("PrefixListIds", "PrefixListId", "PrefixListId"),
        ("UserIdGroupPairs", "GroupId", "ReferencedGroupId"),
    ):
        if written in request:
            permission[member] = [{source: request[written], **described}]
    found = list(_parse_permission(permission))
    if len(found) != 1:
        raise ApiError(
            "InvalidParameterCombination", "A rule has exactly one source or destination"
        )
    return found[0]


def check_count(rules: Iterable[Rule], weights: dict[str, int]) -> None:
    """Return if a group can have so many rules of one direction.

    `weights`: of each prefix list how many entries it can have.

    Raises:
        ApiError: they are too many.
    """
    counts = {4: 0, 6: 0}
    for rule in rules:
        weight = weights.get(rule.prefix_list or "", 1)
        for version in counts:
            if rule.cidr is None or (":" in rule.cidr) == (version == 6):
                counts[version] += weight
    if max(counts.values()) > MAX_RULES:
        raise ApiError(
            "RulesPerSecurityGroupLimitExceeded",
            "The maximum number of rules per security group has been reached.",
        )


def _of_one(request: Json) -> list[Json]:
    """Return what the members of a request say that are as old as EC2: one rule."""
    if not any(m in request for m in ("IpProtocol", "CidrIp", "SourceSecurityGroupName")):
        raise missing("IpPermissions")
    permission: Json = {
        member: request[member]
        for member in ("IpProtocol", "FromPort", "ToPort")
        if member in request
    }
    if "CidrIp" in request:
        permission["IpRanges"] = [{"CidrIp": request["CidrIp"]}]
    if "SourceSecurityGroupName" in request:
        permission["UserIdGroupPairs"] = [{"GroupName": request["SourceSecurityGroupName"]}]
    return [permission]


def _parse_permission(permission: Json) -> Iterator[Rule]:
    protocol = _parse_protocol(permission.get("IpProtocol"))
    ports = (permission.get("FromPort"), permission.get("ToPort"))
    first, last = _parse_ports(protocol, ports)
    count = 0
    for member, name in _SOURCES:
        for each in permission.get(member, []):
            count += 1
            yield Rule(
                protocol=protocol,
                from_port=first,
                to_port=last,
                description=_parse_description(each.get("Description")),
                **_parse_source(member, each.get(name), each),
            )
    if not count:
        raise missing("CidrIp")


def _parse_protocol(text: str | None) -> str:
    if text is None:
        raise missing("IpProtocol")
    protocol = _PROTOCOLS.get(text.lower(), text.lower())
    is_number = protocol.isascii() and protocol.isdigit() and int(protocol) <= MAX_PROTOCOL
    if protocol in {"tcp", "udp", "icmp", "icmpv6", "-1"}:
        return protocol
    if is_number:
        return str(int(protocol))
    raise invalid_value(f"Invalid value '{text[:64]}' for IP protocol. Unknown protocol.")


def _parse_ports(protocol: str, ports: Sequence[int | None]) -> tuple[int, int]:
    first, last = ports
    if protocol in {"tcp", "udp"}:
        if first is None or last is None:
            raise invalid_value(
                "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange."
            )
        for port in (first, last):
            if not 0 <= port <= MAX_PORT:
                raise invalid_value(f"TCP/UDP port ({port}) out of range")
        if first > last:
            raise invalid_value(f"Invalid TCP/UDP port range ({first}:{last})")
        return first, last
    if protocol in {"icmp", "icmpv6"}:
        return _parse_icmp(-1 if first is None else first, -1 if last is None else last)
    return -1, -1


def _parse_icmp(kind: int, code: int) -> tuple[int, int]:
    for what, value in (("type", kind), ("code", code)):
        if not -1 <= value <= MAX_ICMP:
            raise invalid_value(f"ICMP {what} ({value}) out of range")
    if kind == -1 and code != -1:
        raise invalid_value("ICMP code must be -1 when the ICMP type is -1")
    return kind, code


def _parse_source(member: str, text: str | None, pair: Json) -> dict[str, str]:
    match member:
        case "IpRanges":
            return {"cidr": parse_cidr(text or "", 4)}
        case "Ipv6Ranges":
            return {"cidr": parse_cidr(text or "", 6)}
        case "PrefixListIds":
            return {"prefix_list": text or ""}
        case _:
            return {"source_group": text or pair.get("GroupName", "")}


_HAS_LENGTH: Final = re.compile(r"[0-9A-Fa-f:.]+/[0-9]{1,3}")
"""An address with a prefix length: Python takes masks too."""


def parse_cidr(text: str, version: int) -> str:
    """Return a range as EC2 keeps it: without the bits of a host in it.

    Raises:
        ApiError: it is none, or of the other version.
    """
    kind = IPv4Network if version == 4 else IPv6Network
    try:
        network = kind(text, strict=False)
    except ValueError:
        network = None
    if network is None or not _HAS_LENGTH.fullmatch(text):
        raise invalid_value(f"CIDR block {text[:64]} is malformed")
    return str(network)


def _parse_description(text: str | None) -> str | None:
    if text is not None and len(text) > MAX_DESCRIPTION_CHARS:
        raise invalid_value(
            "Invalid rule description. Valid descriptions are strings less than 256 characters"
        )
    return text or None
