"""Filters of EC2's Describe calls: what they look at, and whether something passes them; pure.

Values of a filter are alternatives, all filters must hold, `*` and `?` are wildcards.

Source: EC2 API reference, `Filters` of each operation; EC2 user guide, "List and filter using the
CLI and API".
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.validate import Json

Path = tuple[str, ...]
"""Members to follow; of a list, in each item."""

_TAGS: Final[Mapping[str, Path]] = {"tag-key": ("Tags", "Key"), "tag-value": ("Tags", "Value")}
_IPV6_BLOCKS: Final = "Ipv6CidrBlockAssociationSet"
_IPV6_BLOCK_FILTERS: Final[Mapping[str, Path]] = {
    "ipv6-cidr-block-association.association-id": (_IPV6_BLOCKS, "AssociationId"),
    "ipv6-cidr-block-association.ipv6-cidr-block": (_IPV6_BLOCKS, "Ipv6CidrBlock"),
    "ipv6-cidr-block-association.state": (_IPV6_BLOCKS, "Ipv6CidrBlockState", "State"),
}

INTERFACE_FILTERS: Final[Mapping[str, Path]] = {
    "addresses.association.owner-id": ("PrivateIpAddresses", "Association", "IpOwnerId"),
    "addresses.association.public-ip": ("PrivateIpAddresses", "Association", "PublicIp"),
    "addresses.primary": ("PrivateIpAddresses", "Primary"),
    "addresses.private-ip-address": ("PrivateIpAddresses", "PrivateIpAddress"),
    "association.allocation-id": ("Association", "AllocationId"),
    "association.association-id": ("Association", "AssociationId"),
    "association.ip-owner-id": ("Association", "IpOwnerId"),
    "association.public-dns-name": ("Association", "PublicDnsName"),
    "association.public-ip": ("Association", "PublicIp"),
    "attachment.attach-time": ("Attachment", "AttachTime"),
    "attachment.attachment-id": ("Attachment", "AttachmentId"),
    "attachment.delete-on-termination": ("Attachment", "DeleteOnTermination"),
    "attachment.device-index": ("Attachment", "DeviceIndex"),
    "attachment.instance-id": ("Attachment", "InstanceId"),
    "attachment.instance-owner-id": ("Attachment", "InstanceOwnerId"),
    "attachment.status": ("Attachment", "Status"),
    "availability-zone": ("AvailabilityZone",),
    "description": ("Description",),
    "group-id": ("Groups", "GroupId"),
    "group-name": ("Groups", "GroupName"),
    "interface-type": ("InterfaceType",),
    "ipv6-addresses.ipv6-address": ("Ipv6Addresses", "Ipv6Address"),
    "mac-address": ("MacAddress",),
    "network-interface-id": ("NetworkInterfaceId",),
    "owner-id": ("OwnerId",),
    "private-dns-name": ("PrivateDnsName",),
    "private-ip-address": ("PrivateIpAddress",),
    "requester-id": ("RequesterId",),
    "requester-managed": ("RequesterManaged",),
    "source-dest-check": ("SourceDestCheck",),
    "status": ("Status",),
    "subnet-id": ("SubnetId",),
    "tag-key": ("TagSet", "Key"),
    "tag-value": ("TagSet", "Value"),
    "vpc-id": ("VpcId",),
}

SUBNET_FILTERS: Final[Mapping[str, Path]] = {
    "availability-zone": ("AvailabilityZone",),
    "availabilityZone": ("AvailabilityZone",),
    "available-ip-address-count": ("AvailableIpAddressCount",),
    "cidr": ("CidrBlock",),
    "cidr-block": ("CidrBlock",),
    "cidrBlock": ("CidrBlock",),
    "default-for-az": ("DefaultForAz",),
    "defaultForAz": ("DefaultForAz",),
    "ipv6-native": ("Ipv6Native",),
    "map-public-ip-on-launch": ("MapPublicIpOnLaunch",),
    "owner-id": ("OwnerId",),
    "state": ("State",),
    "subnet-arn": ("SubnetArn",),
    "subnet-id": ("SubnetId",),
    "vpc-id": ("VpcId",),
    **_IPV6_BLOCK_FILTERS,
    **_TAGS,
}

VPC_FILTERS: Final[Mapping[str, Path]] = {
    "cidr": ("CidrBlock",),
    "cidr-block": ("CidrBlock",),
    "cidrBlock": ("CidrBlock",),
    "cidr-block-association.association-id": ("CidrBlockAssociationSet", "AssociationId"),
    "cidr-block-association.cidr-block": ("CidrBlockAssociationSet", "CidrBlock"),
    "cidr-block-association.state": ("CidrBlockAssociationSet", "CidrBlockState", "State"),
    "dhcp-options-id": ("DhcpOptionsId",),
    "dhcpOptionsId": ("DhcpOptionsId",),
    "is-default": ("IsDefault",),
    "isDefault": ("IsDefault",),
    "owner-id": ("OwnerId",),
    "state": ("State",),
    "vpc-id": ("VpcId",),
    **_IPV6_BLOCK_FILTERS,
    **_TAGS,
}


def _rule_filters(prefix: str, member: str) -> dict[str, Path]:
    return {
        f"{prefix}.cidr": (member, "IpRanges", "CidrIp"),
        f"{prefix}.from-port": (member, "FromPort"),
        f"{prefix}.group-id": (member, "UserIdGroupPairs", "GroupId"),
        f"{prefix}.group-name": (member, "UserIdGroupPairs", "GroupName"),
        f"{prefix}.ipv6-cidr": (member, "Ipv6Ranges", "CidrIpv6"),
        f"{prefix}.prefix-list-id": (member, "PrefixListIds", "PrefixListId"),
        f"{prefix}.protocol": (member, "IpProtocol"),
        f"{prefix}.to-port": (member, "ToPort"),
        f"{prefix}.user-id": (member, "UserIdGroupPairs", "UserId"),
    }


SECURITY_GROUP_FILTERS: Final[Mapping[str, Path]] = {
    "description": ("Description",),
    "group-id": ("GroupId",),
    "group-name": ("GroupName",),
    "owner-id": ("OwnerId",),
    "vpc-id": ("VpcId",),
    **_rule_filters("ip-permission", "IpPermissions"),
    **_rule_filters("egress.ip-permission", "IpPermissionsEgress"),
    **_TAGS,
}


RULE_FILTERS: Final[Mapping[str, Path]] = {
    "group-id": ("GroupId",),
    "security-group-rule-id": ("SecurityGroupRuleId",),
    **_TAGS,
}

TAG_FILTERS: Final[Mapping[str, Path]] = {
    "key": ("Key",),
    "resource-id": ("ResourceId",),
    "resource-type": ("ResourceType",),
    "value": ("Value",),
}


GATEWAY_FILTERS: Final[Mapping[str, Path]] = {
    "attachment.state": ("Attachments", "State"),
    "attachment.vpc-id": ("Attachments", "VpcId"),
    "internet-gateway-id": ("InternetGatewayId",),
    "owner-id": ("OwnerId",),
    **_TAGS,
}

EGRESS_ONLY_FILTERS: Final[Mapping[str, Path]] = {**_TAGS}

NAT_FILTERS: Final[Mapping[str, Path]] = {
    "nat-gateway-id": ("NatGatewayId",),
    "state": ("State",),
    "subnet-id": ("SubnetId",),
    "vpc-id": ("VpcId",),
    **_TAGS,
}

ADDRESS_FILTERS: Final[Mapping[str, Path]] = {
    "allocation-id": ("AllocationId",),
    "association-id": ("AssociationId",),
    "network-border-group": ("NetworkBorderGroup",),
    "public-ip": ("PublicIp",),
    **_TAGS,
}

ROUTE_TABLE_FILTERS: Final[Mapping[str, Path]] = {
    "association.main": ("Associations", "Main"),
    "association.route-table-association-id": ("Associations", "RouteTableAssociationId"),
    "association.route-table-id": ("Associations", "RouteTableId"),
    "association.subnet-id": ("Associations", "SubnetId"),
    "route-table-id": ("RouteTableId",),
    "route.destination-cidr-block": ("Routes", "DestinationCidrBlock"),
    "route.destination-ipv6-cidr-block": ("Routes", "DestinationIpv6CidrBlock"),
    "route.gateway-id": ("Routes", "GatewayId"),
    "route.nat-gateway-id": ("Routes", "NatGatewayId"),
    "route.origin": ("Routes", "Origin"),
    "route.state": ("Routes", "State"),
    "vpc-id": ("VpcId",),
    **_TAGS,
}

ACL_FILTERS: Final[Mapping[str, Path]] = {
    "association.association-id": ("Associations", "NetworkAclAssociationId"),
    "association.network-acl-id": ("Associations", "NetworkAclId"),
    "association.subnet-id": ("Associations", "SubnetId"),
    "default": ("IsDefault",),
    "network-acl-id": ("NetworkAclId",),
    "owner-id": ("OwnerId",),
    "vpc-id": ("VpcId",),
    **_TAGS,
}

PREFIX_LIST_FILTERS: Final[Mapping[str, Path]] = {
    "owner-id": ("OwnerId",),
    "prefix-list-id": ("PrefixListId",),
    "prefix-list-name": ("PrefixListName",),
    **_TAGS,
}

ZONE_FILTERS: Final[Mapping[str, Path]] = {
    "group-name": ("GroupName",),
    "message": ("Messages",),
    "opt-in-status": ("OptInStatus",),
    "region-name": ("RegionName",),
    "state": ("State",),
    "zone-id": ("ZoneId",),
    "zone-name": ("ZoneName",),
    "zone-type": ("ZoneType",),
}


class Filters:
    """The filters of one request."""

    def __init__(self, given: Sequence[Json], known: Mapping[str, Path]) -> None:
        """Read the filters of a request.

        Raises:
            ApiError: one is unknown.
        """
        self._wanted: list[tuple[Path, re.Pattern[str]]] = []
        self._tags: list[tuple[str, re.Pattern[str]]] = []
        for each in given:
            name, values = each.get("Name", ""), _compile(each.get("Values", []))
            if name in known:
                self._wanted.append((known[name], values))
            elif name.startswith("tag:"):
                self._tags.append((name.removeprefix("tag:"), values))
            else:
                raise ApiError("InvalidParameterValue", f"The filter '{name[:128]}' is invalid")

    def pass_on(self, item: Json) -> bool:
        """Whether all filters hold for what is described by `item`."""
        return all(
            any(pattern.fullmatch(value) for value in _find_values(item, path))
            for path, pattern in self._wanted
        ) and all(
            any(tag["Key"] == key and pattern.fullmatch(tag["Value"]) for tag in _find_tags(item))
            for key, pattern in self._tags
        )


def _find_tags(item: Json) -> list[Json]:
    found: list[Json] = item.get("Tags") or item.get("TagSet") or []
    return found


def _find_values(found: Any, path: Path) -> Iterator[str]:  # noqa: ANN401 - any member of a shape
    if isinstance(found, list):
        for item in found:
            yield from _find_values(item, path)
    elif isinstance(found, dict):
        if path and path[0] in found:
            yield from _find_values(found[path[0]], path[1:])
    elif isinstance(found, bool):
        yield "true" if found else "false"
    else:
        yield str(found)


def _compile(values: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(_translate(value) for value in values) or r"(?!)")


def _translate(value: str) -> str:
    r"""Write a value of a filter as a pattern; `\*`, `\?` and `\\` mean the sign itself.

    fnmatch writes one that never goes back, so a value with many wildcards costs no more.
    """
    parts = re.findall(r"\\[*?\\]|.", value, re.DOTALL)
    return fnmatch.translate(
        "".join(part if part in {"*", "?"} else f"[{part[-1]}]" for part in parts)
    )
