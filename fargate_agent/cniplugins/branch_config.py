"""What vpc-branch-eni is told, by its configuration and by CNI_ARGS.

Names, messages, and the order in which faults are found: amazon-vpc-cni-plugins,
plugins/vpc-branch-eni.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from fargate_agent.cniplugins.branch_links import MACVTAP, TAP, VLAN
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.results import Address, AddressWithRange
from fargate_agent.cniplugins.vpc_values import (
    MAX_ID,
    parse_address,
    parse_cidr,
    parse_mac,
    parse_number,
)

MAX_VLAN_ID: Final = 4094
"""Source: IEEE 802.1Q."""


class Trunk(NamedTuple):
    """A NIC of the host; one of both may be empty."""

    name: str
    mac: str


class BranchConfig(NamedTuple):
    """What vpc-branch-eni is told."""

    trunk: Trunk
    vlan_id: int
    mac: str
    """Of the container's interface, or of the virtual machine's."""
    addresses: tuple[AddressWithRange, ...]
    gateways: tuple[Address, ...]
    """A virtual machine has both by other means."""
    blocks_imds: bool
    kind: str
    """What the container gets: `VLAN`, `TAP` or `MACVTAP`."""
    uid: int
    gid: int
    """Who may open a TAP."""


def read_trunk(config: Fields) -> Trunk:
    """Read what is the same for all containers of a network.

    Raises:
        CniError: it isn't right.
    """
    name, mac = config.text("trunkName"), config.text("trunkMACAddress")
    _require(name or mac, "trunkName or trunkMACAddress")
    return Trunk(name, _read_mac("trunkMACAddress", mac) if mac else "")


def read_branch(config: Fields, args: Mapping[str, str]) -> BranchConfig:
    """Read a configuration; what CNI_ARGS say counts more.

    Raises:
        CniError: it isn't right.
    """
    trunk = read_trunk(config)
    vlan_id = args.get("BranchVlanID") or config.text("branchVlanID")
    mac = args.get("BranchMACAddress") or config.text("branchMACAddress")
    addresses = _split(args, "IPAddresses") or config.texts("ipAddresses")
    gateways = _split(args, "GatewayIPAddresses") or config.texts("gatewayIPAddresses")
    kind = config.text("interfaceType") or TAP
    uid, gid = config.text("uid"), config.text("gid")
    _require(vlan_id, "branchVlanID")
    _require(mac, "branchMACAddress")
    if kind == TAP:
        _require(uid, "uid")
        _require(gid, "gid")
    elif kind not in {VLAN, MACVTAP}:
        raise _invalid("interfaceType", kind)
    return BranchConfig(
        trunk=trunk,
        vlan_id=_read_vlan_id(vlan_id),
        mac=_read_mac("branchMACAddress", mac),
        addresses=tuple(map(_read_address, addresses)),
        gateways=tuple(map(_read_gateway, gateways)),
        blocks_imds=config.flag("blockInstanceMetadata"),
        kind=kind,
        uid=_read_id("uid", uid) if kind == TAP else 0,
        gid=_read_id("gid", gid) if kind == TAP else 0,
    )


def _split(args: Mapping[str, str], name: str) -> list[str]:
    text = args.get(name, "")
    return text.split(",") if text else []


def _require(text: str, name: str) -> None:
    if not text:
        raise CniError(f"missing required parameter {name}", INVALID_CONFIG)


def _invalid(name: str, text: str) -> CniError:
    return CniError(f"invalid {name} {text}", INVALID_CONFIG)


def _read_mac(name: str, text: str) -> str:
    mac = parse_mac(text)
    if mac is None:
        raise _invalid(name, text)
    return mac


def _read_vlan_id(text: str) -> int:
    vlan_id = parse_number(text, MAX_VLAN_ID)
    if not vlan_id:
        raise _invalid("branchVlanID", text)
    return vlan_id


def _read_id(name: str, text: str) -> int:
    number = parse_number(text, MAX_ID)
    if number is None:
        raise _invalid(name, text)
    return number


def _read_address(text: str) -> AddressWithRange:
    address = parse_cidr(text)
    if address is None:
        raise _invalid("ipAddress", text)
    return address


def _read_gateway(text: str) -> Address:
    gateway = parse_address(text)
    if gateway is None:
        raise _invalid("gatewayIPAddress", text)
    return gateway
